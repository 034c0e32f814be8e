"""Samples as dictionaries, and dictionaries of samples stacked to a batch, with errors that say what to change."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from kd_runner.errors import ConfigError

Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


class KeyedSamples(Dataset[dict[str, Any]]):
    """Wraps a dataset whose samples are tuples: `(image, label)` becomes `{"image": image, "target": label}`.

    Args:
        samples: the dataset; a sample that is a mapping stays as it is.
        keys: names of a tuple's entries, in order.
        name: configuration key of the dataset, for messages.
    """

    def __init__(self, samples: Any, keys: Sequence[str], name: str = "data"):
        self.samples, self.keys, self.name = samples, list(keys), name

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        if isinstance(sample, Mapping):
            return dict(sample)
        if not isinstance(sample, tuple | list) or len(sample) != len(self.keys):
            count = f" of {len(sample)}" if isinstance(sample, tuple | list) else ""
            raise ConfigError(
                f"data.sample_keys={self.keys}: a sample of {self.name} is a {type(sample).__name__}{count}"
            )
        return {
            key: torch.tensor(value) if isinstance(value, int | float) else value
            for key, value in zip(self.keys, sample, strict=True)
        }

    def __len__(self) -> int:
        return len(self.samples)


def stack(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: every entry stacked over the samples.

    Args:
        samples: dictionaries of the same keys, tensors of one name with one shape.

    Returns:
        Name to stacked tensor.

    Raises:
        ConfigError: samples differ in their keys, or a tensor in its shape.
    """
    for sample in samples[1:]:
        if differing := sample.keys() ^ samples[0].keys():
            raise ConfigError(f"data: some samples have {sorted(differing)[0]!r}, others have not")
        for key, value in sample.items():
            first = samples[0][key]
            if isinstance(value, Tensor) and isinstance(first, Tensor) and value.shape != first.shape:
                raise ConfigError(
                    f"data: {key!r} is {tuple(first.shape)} in one sample and {tuple(value.shape)} in another, which "
                    "cannot be stacked: crop or resize it in the dataset's transform, pad it, or name a function that "
                    "makes the batch: data.collate"
                )
    try:
        return default_collate(samples)
    except TypeError as error:
        raise ConfigError(f"data: samples cannot be stacked: {str(error).splitlines()[0]}") from error


def keep_lists(samples: list[dict[str, Any]], lists: Sequence[str] = ()) -> dict[str, Any]:
    """`stack`, with some entries kept as lists of one value a sample: boxes of any number, say.

    Args:
        samples: dictionaries of the same keys.
        lists: names of the entries that are not stacked.

    Returns:
        Name to stacked tensor, or to the list.
    """
    stacked = stack([{key: value for key, value in sample.items() if key not in lists} for sample in samples])
    return stacked | {key: [sample[key] for sample in samples] for key in lists}
