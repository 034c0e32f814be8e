"""A fixed number of augmentations per sample, so that teacher outputs can be cached."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset


class FixedAugmentations(Dataset[dict[str, Tensor]]):
    """Wraps a dataset so that every sample has `count` random augmentations; adds the augmentation's number as `view`.

    The number is drawn from torch's generator, which `SeededDataset` has seeded. Augmentation v of sample i depends on
    i and v alone, so runs of different seeds have them in common.

    Args:
        samples: dataset whose augmentation draws from torch's global CPU generator.
        count: number of augmentations per sample.
        memory_mb: finished samples stay in memory up to so many MB in each process, and are not made again.
    """

    def __init__(self, samples: Dataset[dict[str, Tensor]], count: int, memory_mb: float = 0):
        self.samples, self.count = samples, count
        self._kept: dict[tuple[int, int], dict[str, Any]] = {}
        self._room = int(memory_mb * 1e6)

    def __getitem__(self, index: int) -> dict[str, Any]:
        view = int(torch.randint(self.count, ()))
        if (index, view) in self._kept:
            return {name: _unpack(value) for name, value in self._kept[index, view].items()}
        torch.default_generator.manual_seed(hash((index, view)) % 2**63)
        sample = {**self.samples[index], "view": torch.tensor(view)}
        if self._room > 0:
            packed = {name: _pack(value) for name, value in sample.items()}
            self._room -= sum(tensor.nbytes for tensor in _tensors(packed))
            if self._room >= 0:
                self._kept[index, view] = packed
        return sample

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]


class _Labels:
    """Labels 0 to 255 in a byte each instead of eight."""

    def __init__(self, labels: Tensor):
        self.bytes = labels.to(torch.uint8)


def _pack(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype == torch.int64 and value.ndim > 1:
        low, high = value.aminmax() if value.numel() else (value.new_zeros(()),) * 2
        return _Labels(value) if low >= 0 and high <= 255 else value.clone()
    return value.clone() if isinstance(value, Tensor) else value  # a view would keep all of its storage


def _unpack(value: Any) -> Any:
    return value.bytes.to(torch.int64) if isinstance(value, _Labels) else value


def _tensors(sample: dict[str, Any]) -> list[Tensor]:
    values = [value.bytes if isinstance(value, _Labels) else value for value in sample.values()]
    return [value for value in values if isinstance(value, Tensor)]
