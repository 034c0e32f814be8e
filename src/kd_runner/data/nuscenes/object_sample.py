"""Ground-truth sampling: objects of other frames are added with their points.

Source: Yan et al. 2018, "SECOND", section 3.2.4.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kd_runner.data.nuscenes.frame import LidarFrame, Objects, join
from kd_runner.data.nuscenes.tables import KeyFrame
from kd_runner.errors import nearest
from kd_runner.geometry.boxes3d import inside, overlaps
from kd_runner.runtime.write_once import write_once

# BEVFusion's: the number of objects of a class that a frame is filled up to.
COUNTS = {
    "car": 2,
    "truck": 3,
    "construction_vehicle": 7,
    "bus": 4,
    "trailer": 6,
    "barrier": 2,
    "motorcycle": 6,
    "bicycle": 6,
    "pedestrian": 2,
    "traffic_cone": 2,
}
FORMAT = 1


class AnnotatedFrames(Protocol):
    """What `ObjectSample.fill` reads of a dataset, as `NuScenesLidar` has it."""

    frames: list[KeyFrame]
    classes: list[str]
    num_sweeps: int

    @property
    def num_objects(self) -> int: ...

    def __len__(self) -> int: ...

    def load(self, index: int) -> LidarFrame:
        """All points and objects of a frame.

        Args:
            index: number of the sample.

        Returns:
            The frame.
        """
        ...


class ObjectSample:
    """Adds objects of other frames until a frame has `counts` objects of each class.

    An object keeps its position, so that its density of points and its occlusion fit its distance. It is left out where
    it would overlap another one seen from above. Points of the frame inside an added object are removed. An object
    keeps its annotation number. Draws from torch's global generator.

    Args:
        folder: database of objects with their points, cut out of the whole training set once.
        counts: class to number of objects; None for BEVFusion's. Objects of other classes are not added.
        min_points: objects with fewer points are not added.

    Raises:
        ValueError: nuScenes has no such class.
    """

    def __init__(self, folder: str | Path, counts: Mapping[str, int] | None = None, min_points: int = 5):
        self.folder, self.counts, self.min_points = Path(folder), dict(counts or COUNTS), min_points
        for name in self.counts:
            if name not in COUNTS:
                raise ValueError(f"counts: nuScenes has no class {name!r}.{nearest(name, COUNTS)}")
        # Shared memory: worker processes that live through training see it change.
        self._enabled = torch.ones((), dtype=torch.bool).share_memory_()

    @property
    def enabled(self) -> bool:
        """Whether objects are added; set it to False to train on frames as they are."""
        return bool(self._enabled)

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled.fill_(value)

    def fill(self, dataset: AnnotatedFrames) -> None:
        """Cut the objects out of all frames of a data set, or read those of an earlier run on the same data.

        Args:
            dataset: the frames.
        """
        manifest = {
            "format": FORMAT,
            "frames": len(dataset),
            "objects": dataset.num_objects,
            "num_sweeps": dataset.num_sweeps,
            "annotations": _checksum(dataset),
        }
        write_once(self.folder, manifest, lambda folder: _write_database(folder, dataset))
        with np.load(self.folder / "objects.npz") as file:
            rows = {name: torch.from_numpy(file[name]) for name in file}
        self.starts: Tensor = rows["starts"]
        self.objects = Objects(rows["boxes"], rows["labels"], rows["ids"], rows["attributes"])
        self.points = np.load(self.folder / "points.npy", mmap_mode="r")
        dense = self.starts.diff() >= self.min_points
        labels = {name: n for n, name in enumerate(dataset.classes)}
        self.candidates = {
            labels[name]: (count, torch.nonzero(dense & (self.objects.labels == labels[name]))[:, 0])
            for name, count in self.counts.items()
            if name in labels
        }

    def __call__(self, frame: LidarFrame) -> LidarFrame:
        """The frame with further objects and their points."""
        if not self.enabled:
            return frame
        boxes, chosen = frame.objects.boxes, []
        for label, (count, candidates) in self.candidates.items():
            missing = count - int((frame.objects.labels == label).sum())
            if missing <= 0 or not len(candidates):
                continue
            for number in candidates[torch.randperm(len(candidates))[:missing]].tolist():
                box = self.objects.boxes[number][None]
                if not overlaps(box, boxes).any():
                    boxes = torch.cat([boxes, box])
                    chosen.append(number)
        if not chosen:
            return frame
        added = self.objects.take(torch.tensor(chosen))
        outside = ~inside(frame.points, added.boxes).any(0)
        spans = [self.points[self.starts[n] : self.starts[n + 1]] for n in chosen]
        points = torch.cat([frame.points[outside], *(torch.from_numpy(np.array(span)) for span in spans)])
        return LidarFrame(points, join([frame.objects, added]))


def _checksum(dataset: AnnotatedFrames) -> int:
    """CRC-32 of the class names and of all annotations."""
    value = zlib.crc32(" ".join(dataset.classes).encode())
    for frame in dataset.frames:
        for column in (frame.boxes, frame.labels, frame.points):
            value = zlib.crc32(column.tobytes(), value)
    return value


def _write_database(folder: Path, dataset: AnnotatedFrames) -> None:
    """Write `points.npy`, the points of all objects one after the other, and `objects.npz`, the objects."""
    points, parts = [], []
    for index in range(len(dataset)):
        frame = dataset.load(index)
        parts.append(frame.objects)
        points += [frame.points[mask].numpy() for mask in inside(frame.points, frame.objects.boxes)]
    objects = join(parts)
    starts = np.cumsum([0, *map(len, points)])
    np.save(folder / "points.npy", np.concatenate(points) if points else np.zeros((0, 5), np.float32))
    rows = {name: getattr(objects, name).numpy() for name in ("boxes", "labels", "ids", "attributes")}
    np.savez(folder / "objects.npz", starts=starts, **rows)
