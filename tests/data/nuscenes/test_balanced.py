"""Class-balanced sampling: equal shares, and the frame's own number."""

from collections import Counter
from pathlib import Path

import torch

from kd_runner.data.nuscenes.balanced import ClassBalanced
from kd_runner.data.nuscenes.dataset import NuScenesLidar
from kd_runner.data.order import SeededDataset


class Frames:
    """100 frames; class 0 in all, class 1 in ten, class 2 in one."""

    object_sample = None

    def __len__(self) -> int:
        return 100

    def labels(self, index: int) -> set[int]:
        return {0} | ({1} if index % 10 == 0 else set()) | ({2} if index == 55 else set())

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"frame": torch.tensor(index)}


def test_every_class_is_drawn_equally_often() -> None:
    """111 pairs of frame and class: 37 draws each."""
    balanced = ClassBalanced(Frames())  # type: ignore[arg-type]
    assert len(balanced) == 111
    counts = Counter(balanced.indices)
    assert counts[55] in range(37, 40)
    assert sum(counts[index] for index in range(0, 100, 10)) in range(37, 50)
    assert balanced.indices == ClassBalanced(Frames()).indices  # type: ignore[arg-type]
    assert balanced.indices != ClassBalanced(Frames(), seed=1).indices  # type: ignore[arg-type]


def test_the_index_is_that_of_the_frame() -> None:
    samples = SeededDataset(ClassBalanced(Frames()))  # type: ignore[arg-type]
    for number in range(len(samples)):
        sample = samples[(number, 7)]
        assert int(sample["index"]) == int(sample["frame"])
    assert int(samples[110]["index"]) == 55


def test_on_the_world(world: Path) -> None:
    dataset = NuScenesLidar(world, "v1.0-mini", "world_train", train=True, num_sweeps=0)
    samples = SeededDataset(ClassBalanced(dataset))
    assert len(samples) > len(dataset)
    assert {int(samples[n]["index"]) for n in range(0, len(samples), 7)} <= set(range(len(dataset)))
