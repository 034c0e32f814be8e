"""Objects of other frames, pasted with their points (Yan et al. 2018, "SECOND", section 3.2.4)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kd_runner.data.nuscenes.frame import LidarFrame, Objects, join
from kd_runner.errors import ConfigError, nearest
from kd_runner.geometry.boxes3d import inside, overlaps
from kd_runner.runtime.write_once import write_once

if TYPE_CHECKING:
    from kd_runner.data.nuscenes.dataset import NuScenesLidar

# BEVFusion's: how many objects of a class a frame is filled up to.
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


class ObjectSample:
    """Fills a frame up to `counts` objects of each class.

    An object keeps its place, so that density and occlusion suit its distance; it is left out where it would touch
    another one from above, and points of the frame inside it give way. It keeps the number of its annotation. Draws
    from torch's global generator.

    Args:
        folder: where the objects are kept, cut out of the whole training set once.
        counts: class to number; None for BEVFusion's. Classes that are not named are not pasted.
        min_points: objects with fewer points are not pasted.
    """

    def __init__(self, folder: str | Path, counts: Mapping[str, int] | None = None, min_points: int = 5):
        self.folder, self.counts, self.min_points = Path(folder), dict(counts or COUNTS), min_points
        for name in self.counts:
            if name not in COUNTS:
                raise ConfigError(f"data.train.paste.counts: nuScenes has no class {name!r}.{nearest(name, COUNTS)}")
        # Shared memory: loader processes that live through training see it change.
        self._on = torch.ones((), dtype=torch.bool).share_memory_()

    @property
    def on(self) -> bool:
        return bool(self._on)

    @on.setter
    def on(self, value: bool) -> None:
        self._on.fill_(value)

    def fill(self, dataset: NuScenesLidar) -> None:
        """Cut the objects out of all frames of a data set, or take those of an earlier run of the same data."""
        manifest = {
            "format": FORMAT,
            "frames": len(dataset),
            "objects": dataset.num_objects,
            "num_sweeps": dataset.num_sweeps,
            "annotations": _checksum(dataset),
        }
        write_once(self.folder, manifest, lambda folder: _cut_out(folder, dataset))
        with np.load(self.folder / "objects.npz") as file:
            rows = {name: torch.from_numpy(file[name]) for name in file}
        self.starts: Tensor = rows["starts"]
        self.objects = Objects(rows["boxes"], rows["labels"], rows["ids"], rows["attributes"])
        self.points = np.load(self.folder / "points.npy", mmap_mode="r")
        full = self.starts.diff() >= self.min_points
        labels = {name: n for n, name in enumerate(dataset.classes)}
        self.stock = {
            labels[name]: (count, torch.nonzero(full & (self.objects.labels == labels[name]))[:, 0])
            for name, count in self.counts.items()
            if name in labels
        }

    def __call__(self, frame: LidarFrame) -> LidarFrame:
        if not self.on:
            return frame
        taken, chosen = frame.objects.boxes, []
        for label, (count, stock) in self.stock.items():
            missing = count - int((frame.objects.labels == label).sum())
            if missing <= 0 or not len(stock):
                continue
            for number in stock[torch.randperm(len(stock))[:missing]].tolist():
                box = self.objects.boxes[number][None]
                if not overlaps(box, taken).any():
                    taken = torch.cat([taken, box])
                    chosen.append(number)
        if not chosen:
            return frame
        pasted = self.objects.take(torch.tensor(chosen))
        free = ~inside(frame.points, pasted.boxes).any(0)
        spans = [self.points[self.starts[n] : self.starts[n + 1]] for n in chosen]
        points = torch.cat([frame.points[free], *(torch.from_numpy(np.array(span)) for span in spans)])
        return LidarFrame(points, join([frame.objects, pasted]))


def _checksum(dataset: NuScenesLidar) -> int:
    """Of the names of the classes and of all annotations."""
    value = zlib.crc32(" ".join(dataset.classes).encode())
    for frame in dataset.frames:
        for column in (frame.boxes, frame.labels, frame.points):
            value = zlib.crc32(column.tobytes(), value)
    return value


def _cut_out(folder: Path, dataset: NuScenesLidar) -> None:
    points, found = [], []
    for index in range(len(dataset)):
        frame = dataset.load(index)
        found.append(frame.objects)
        points += [frame.points[mask].numpy() for mask in inside(frame.points, frame.objects.boxes)]
    objects = join(found)
    starts = np.cumsum([0, *map(len, points)])
    np.save(folder / "points.npy", np.concatenate(points) if points else np.zeros((0, 5), np.float32))
    rows = {name: getattr(objects, name).numpy() for name in ("boxes", "labels", "ids", "attributes")}
    np.savez(folder / "objects.npz", starts=starts, **rows)
