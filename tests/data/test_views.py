"""A fixed number of augmentations per sample."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_runner.data.order import SeededDataset
from kd_runner.data.views import FixedAugmentations


class Noisy(Dataset[dict[str, Tensor]]):
    """Counts the samples that are made."""

    def __init__(self) -> None:
        self.made = 0

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self.made += 1
        image = torch.rand(3, 4, 4)
        target = torch.randint(256, (4, 4))
        return {"image": image, "target": target, "wide": target - 300, "valid": image[0] > 0.5, "number": target[0, 0]}


def test_samples_kept_in_memory_are_those_that_would_be_made_again() -> None:
    plain, kept = SeededDataset(FixedAugmentations(Noisy(), 2)), FixedAugmentations(Noisy(), 2, memory_mb=1)
    samples = SeededDataset(kept)
    keys = [(index, seed) for index in range(5) for seed in range(8)]
    for key in keys:
        again, made = samples[key], plain[key]
        assert again.keys() == made.keys()
        for name in again:
            assert again[name].dtype == made[name].dtype and torch.equal(again[name], made[name]), name
    assert kept.samples.made == 10 < plain.samples.samples.made == len(keys)


def test_memory_has_a_limit() -> None:
    kept = FixedAugmentations(Noisy(), 1, memory_mb=1000e-6)  # a sample takes about 400 bytes
    for _ in range(2):
        for index in range(5):
            kept[index]
    assert kept.samples.made == 5 + 3
