"""LiDAR sweeps and boxes of nuScenes, read from its own tables."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from kd_runner.data.nuscenes.frame import LidarFrame, Objects
from kd_runner.data.nuscenes.object_sample import ObjectSample
from kd_runner.data.nuscenes.tables import CHANNEL, KeyFrame, Sweep, read
from kd_runner.data.nuscenes.taxonomy import CLASSES
from kd_runner.errors import nearest
from kd_runner.geometry.boxes3d import inverse_transform

_log = logging.getLogger(__name__)

Array = NDArray[Any]

_CLOSE_M = 1.0  # in sweeps, what is nearer in x and y is the car itself
_FAR_M = 1e4  # no LiDAR sees so far: the bytes are not what they should be
_POINT_BYTES = 20


class NuScenesLidar(Dataset[dict[str, Tensor]]):
    """Key frames of a split, scene by scene, in time.

    A sample, in the frame of the LiDAR (x right, y forward, z up; m, rad, m/s); rows beyond the mask are padding:
    `points` (max_points, 5) float32: x, y, z, intensity, time lag in s, of which the first `num_points` () are real;
    `gt_boxes` (max_boxes, 9) as in `geometry.boxes3d`, vx and vy 0 where unknown; `gt_velocity_mask` (max_boxes,):
    where they are known;
    `gt_labels` in `classes`, `gt_ids` numbers of the annotations among all `num_objects` of the split, `gt_attributes`
    in `taxonomy.ATTRIBUTES`, all (max_boxes,) int64, -1 for none; `gt_mask` (max_boxes,) bool;
    `labeled` () bool, whether boxes are known; `scene` () row of the scene in its
    table, the same in every split; `timestamp` () float64 in s.
    In evaluation there are, too: `lidar2local` (4, 4) float32, to axes parallel to the global ones with the origin at
    the ego car, where the benchmark measures; `lidar2global` (4, 4) float64; `racks` (max_racks, 7), bicycle racks in
    the frame of the LiDAR, zeros for none.

    Boxes without a LiDAR or radar point are left out. Of more boxes than fit the nearest are kept; of more points,
    random ones.

    Args:
        root: folder with the tables' folder, `samples/` and `sweeps/`.
        version: v1.0-mini, v1.0-trainval, v1.0-test: the tables' folder.
        split: a list in `<version>/splits.json`, or an official one: train, val (of v1.0-mini: mini_train, mini_val),
            test.
        labeled: give the boxes; without, a sample is as if it had none, and `labeled` says so.
        train: draw sweeps at random and shuffle points; else the sweeps nearest in time, and the points as they are.
        num_sweeps: sweeps beside the key frame. Without any, copies of the key frame.
        num_history: sweeps before a key frame from which those are chosen.
        point_range: (x, y, z, x, y, z), lowest and highest: points beyond it are left out.
        classes: names of the labels; annotations of others are left out.
        max_points: rows of the padded tensors.
        max_boxes: rows of the padded tensors.
        max_racks: rows of the padded tensors.
        intensity_scale: factor of the intensity, 0 to 255 in the files.
        object_sample: adds objects of other frames in training.
        augment: changes a frame in training; boxes whose centers leave the range in x or y are left out then.

    Raises:
        ValueError: tables or the split are missing or invalid (see `tables.read`), there is no such class; on access, a
            file of points that is missing, cut short, or holds numbers that are not finite.
    """

    needs_float32 = "points and boxes in meters"

    def __init__(
        self,
        root: str | Path,
        version: str,
        split: str,
        labeled: bool = True,
        train: bool = False,
        num_sweeps: int = 9,
        num_history: int = 10,
        point_range: Sequence[float] = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0),
        classes: Sequence[str] = CLASSES,
        max_points: int = 300_000,
        max_boxes: int = 256,
        max_racks: int = 16,
        intensity_scale: float = 1.0,
        object_sample: ObjectSample | None = None,
        augment: Callable[[LidarFrame], LidarFrame] | None = None,
    ):
        for name in classes:
            if name not in CLASSES:
                raise ValueError(f"classes: nuScenes has no class {name!r}.{nearest(name, CLASSES)}")
        if not train and (object_sample is not None or augment is not None):
            raise ValueError("object_sample and augment need train=true; evaluation takes frames as they are")
        if object_sample is not None and not labeled:
            raise ValueError("object_sample needs labeled=true: it adds labeled objects")
        self.root, self.classes, self.labeled, self.train = Path(root), list(classes), labeled, train
        self.frames = read(self.root, version, split, self.classes, num_history)
        self.num_sweeps, self.point_range = num_sweeps, torch.tensor(list(point_range), dtype=torch.float32)
        self.max_points, self.max_boxes, self.max_racks = max_points, max_boxes, max_racks
        self.intensity_scale, self.object_sample, self.augment = intensity_scale, object_sample, augment
        self._warned = False
        if object_sample is not None:
            object_sample.fill(self)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def num_objects(self) -> int:
        """Annotations of the split; `gt_ids` are below it."""
        return sum(len(frame.ids) for frame in self.frames)

    def token(self, index: int) -> str:
        """nuScenes' token of a sample.

        Args:
            index: number of the sample.

        Returns:
            The token.
        """
        return self.frames[index].token

    def labels(self, index: int) -> set[int]:
        """Classes that a frame shows.

        Args:
            index: number of the sample.

        Returns:
            Their labels.
        """
        frame = self.frames[index]
        return set(frame.labels[frame.points > 0].tolist())

    def load(self, index: int) -> LidarFrame:
        """All points and valid objects of a frame, before any random change but that of the sweeps.

        Args:
            index: number of the sample.

        Returns:
            The frame.
        """
        frame = self.frames[index]
        return LidarFrame(torch.from_numpy(self._points(frame)), self._objects(frame))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        key = self.frames[index]
        frame = self.load(index)
        if self.object_sample is not None:
            frame = self.object_sample(frame)
        if self.augment is not None:
            frame = self.augment(frame)
        low, high = self.point_range[:3], self.point_range[3:]
        points, objects = frame.points, frame.objects
        near = points[((points[:, :3] >= low) & (points[:, :3] <= high)).all(1)]
        if not len(near):
            path, box = self.root / key.sweep.path, self.point_range.tolist()
            raise ValueError(f"{path}: none of its {len(points)} points lies in point_range={box}")
        points = near
        if self.train:
            center = objects.boxes[:, :2]
            objects = objects.take(((center >= low[:2]) & (center <= high[:2])).all(1))
        sample = {
            **self._padded_points(points, index),
            **self._padded_objects(objects),
            "labeled": torch.tensor(self.labeled),
            "scene": torch.tensor(key.scene),
            "timestamp": torch.tensor(key.sweep.time_us / 1e6, dtype=torch.float64),
        }
        return sample if self.train else {**sample, **self._poses(key)}

    def _points(self, frame: KeyFrame) -> Array:
        """Points (P, 5) of the key frame and its sweeps, moved to where the LiDAR is at the key frame."""
        own = self._file(frame.sweep)
        parts = [np.concatenate([own[:, :4], np.zeros((len(own), 1), np.float32)], 1)]
        if not frame.history:
            parts += [_without_close(parts[0])] * self.num_sweeps
        for sweep in self._chosen(frame.history):
            points = _without_close(self._file(sweep))
            matrix = np.linalg.inv(frame.sweep.lidar2global) @ sweep.lidar2global
            points[:, :3] = points[:, :3] @ matrix[:3, :3].T.astype(np.float32) + matrix[:3, 3].astype(np.float32)
            points[:, 4] = (frame.sweep.time_us - sweep.time_us) / 1e6  # the ring's column
            parts.append(points)
        return np.concatenate(parts)

    def _file(self, sweep: Sweep) -> Array:
        """Rows (P, 5) of a file: x, y, z, intensity, ring."""
        path = self.root / sweep.path
        try:
            numbers = np.fromfile(path, np.uint8)
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}): expected a sweep of {CHANNEL}") from error
        if not len(numbers) or len(numbers) % _POINT_BYTES:
            raise ValueError(
                f"{path} has {len(numbers)} bytes: expected a multiple of {_POINT_BYTES}, five float32 of each point"
            )
        points = numbers.view(np.float32).reshape(-1, 5)
        wrong = np.flatnonzero(~np.isfinite(points[:, :4]).all(1))
        if len(wrong):
            values = points[wrong[0], :4].tolist()
            raise ValueError(f"{path}: point {wrong[0]} is {values}: expected finite x, y, z and intensity")
        wrong = np.flatnonzero((np.abs(points[:, :3]) > _FAR_M).any(1) | (points[:, 3] < 0))
        if len(wrong):
            values = points[wrong[0]].tolist()
            raise ValueError(
                f"{path}: point {wrong[0]} is {values}: expected x, y, z in meters, an intensity from 0 and a ring; is "
                "it five float32 of each point?"
            )
        return points

    def _chosen(self, history: Sequence[Sweep]) -> list[Sweep]:
        if not self.train or len(history) <= self.num_sweeps:
            return list(history[: self.num_sweeps])
        return [history[i] for i in sorted(torch.randperm(len(history))[: self.num_sweeps].tolist())]

    def _objects(self, frame: KeyFrame) -> Objects:
        seen = (frame.points > 0) & self.labeled
        boxes = inverse_transform(
            torch.from_numpy(frame.boxes[seen]), torch.from_numpy(frame.sweep.lidar2global)
        ).float()
        return Objects(boxes, *(torch.from_numpy(v[seen]) for v in (frame.labels, frame.ids, frame.attributes)))

    def _padded_points(self, points: Tensor, index: int) -> dict[str, Tensor]:
        count = min(len(points), self.max_points)
        if len(points) > count and not self._warned:
            self._warned = True
            _log.warning("A frame has more points than max_points=%d; a random part of them is kept", count)
        if self.train:
            points = points[torch.randperm(len(points))[:count]]
        elif len(points) > count:
            generator = torch.Generator().manual_seed(index)
            points = points[torch.randperm(len(points), generator=generator)[:count].sort().values]
        padded = torch.zeros(self.max_points, 5)
        padded[:count] = points
        padded[:count, 3] *= self.intensity_scale
        return {"points": padded, "num_points": torch.tensor(count)}

    def _padded_objects(self, objects: Objects) -> dict[str, Tensor]:
        distance = torch.linalg.vector_norm(objects.boxes[:, :2], dim=1)
        objects = objects.take(distance.argsort(stable=True)[: self.max_boxes].sort().values)
        count = len(objects)
        boxes, numbers = torch.zeros(self.max_boxes, 9), torch.full((3, self.max_boxes), -1)
        boxes[:count] = objects.boxes
        known = ~boxes[:, 7:].isnan().any(1)
        mask = torch.arange(self.max_boxes) < count
        numbers[:, :count] = torch.stack([objects.labels, objects.ids, objects.attributes])
        return {
            "gt_boxes": boxes.nan_to_num(0.0),
            "gt_velocity_mask": known & mask,
            "gt_labels": numbers[0],
            "gt_ids": numbers[1],
            "gt_attributes": numbers[2],
            "gt_mask": mask,
        }

    def _poses(self, frame: KeyFrame) -> dict[str, Tensor]:
        """Poses of a frame and bicycle racks in it, for evaluation."""
        lidar2global = torch.from_numpy(frame.sweep.lidar2global)
        local = lidar2global.clone()
        local[:3, 3] -= torch.from_numpy(frame.sweep.ego2global[:3, 3])
        racks = torch.zeros(self.max_racks, 7)
        boxes = inverse_transform(torch.from_numpy(frame.racks), lidar2global)[: self.max_racks, :7]
        racks[: len(boxes)] = boxes.float()
        return {"lidar2local": local.float(), "lidar2global": lidar2global, "racks": racks}


def _without_close(points: Array) -> Array:
    return points[(np.abs(points[:, :2]) >= _CLOSE_M).any(1)].copy()
