"""Class-balanced sampling (Zhu et al. 2019, "CBGS")."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_runner.data.nuscenes.dataset import NuScenesLidar
from kd_runner.data.nuscenes.object_sample import ObjectSample


class ClassBalanced(Dataset[dict[str, Tensor]]):
    """Frames drawn with repetition so that every class gets the same number of draws of frames that show it.

    As many draws as there are (frame, class in it) pairs, divided evenly among the classes: the 28,130 frames of
    nuScenes become about 123,580. A sample's `index` is that of the frame, not of the draw: what is kept for every
    frame stays with it.

    Args:
        dataset: the frames.
        seed: of the draws.
    """

    def __init__(self, dataset: NuScenesLidar, seed: int = 0):
        self.dataset = dataset
        frames: dict[int, list[int]] = {}
        for index in range(len(dataset)):
            for label in dataset.labels(index):
                frames.setdefault(label, []).append(index)
        per_class = sum(map(len, frames.values())) // max(len(frames), 1)
        generator = torch.Generator().manual_seed(seed)
        self.indices: list[int] = []
        for _, members in sorted(frames.items()):
            drawn = torch.randint(len(members), (per_class,), generator=generator)
            self.indices += [members[i] for i in drawn.tolist()]

    @property
    def num_indices(self) -> int:
        """Of frames, which `index` counts."""
        return len(self.dataset)

    @property
    def object_sample(self) -> ObjectSample | None:
        """That of the dataset."""
        return self.dataset.object_sample

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> dict[str, Any]:
        index = self.indices[number]
        return {**self.dataset[index], "index": torch.tensor(index)}
