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
    """

    def __init__(self, samples: Dataset[dict[str, Tensor]], count: int):
        self.samples, self.count = samples, count

    def __getitem__(self, index: int) -> dict[str, Any]:
        view = int(torch.randint(self.count, ()))
        torch.default_generator.manual_seed(hash((index, view)) % 2**63)
        return {**self.samples[index], "view": torch.tensor(view)}

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]
