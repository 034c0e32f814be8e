"""Bench2Drive as prepared by Bench2DriveZoo: camera images, boxes and map lines of a frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from kd_runner.data.bench2drive.camera_images import read_images
from kd_runner.data.bench2drive.camera_pipeline import CameraPipeline
from kd_runner.data.bench2drive.classes import CAMERAS, class_of
from kd_runner.data.bench2drive.infos import Info, find_folders, frame_token, load_infos, load_maps
from kd_runner.errors import nearest
from kd_runner.geometry.boxes3d import from_bench2drive

Array = NDArray[Any]


class Bench2Drive(Dataset[dict[str, Tensor]]):
    """Frames of one info list, in its order.

    A sample is a dict, in the LiDAR frame (x right, y forward, z up; meters, radians, m/s). Boxes and lines are padded
    to fixed sizes, so that samples can be stacked:

    - `images` (N, 3, H, W); `lidar2img`, `intrinsics` (N, 4, 4) to pixels of `images`;
    - `gt_boxes` (max_boxes, 9) as in `geometry.boxes3d`, yaw in [-pi, pi); `gt_labels` (max_boxes,) in CLASSES, -1 for
      padding; `gt_mask` (max_boxes,) bool, True for boxes with points;
    - `gt_empty_mask` (max_boxes,) bool, True for boxes without points (`num_points` 0), which follow the others;
    - `line_points` (max_lines, num_points, 2); `line_labels` (max_lines,) in LINE_CLASSES; `line_mask` (max_lines,);
    - `ego_pose` (4, 4) float64, LiDAR frame to world; `timestamp` float64 in s; `scene` the number of the clip;
    - `labeled` bool, whether boxes and lines are known.

    Boxes of classes that are not detected are left out. The keys are the published ones, so Bench2DriveZoo's own info
    files can be read. If boxes or lines exceed the padded size, the nearest are kept, boxes with points first.

    Args:
        root: folder with `bench2drive/` and `infos/`, or the folder `bench2drive` itself with `infos/` in or beside it.
        split: `train` or `val`, for `b2d_infos_<split>.pkl`.
        pipeline: converts images to network input.
        range_m: largest |x| and |y| of boxes and line points in meters.
        num_points: points per line.
        max_boxes: rows of the padded boxes.
        max_lines: rows of the padded lines.
        cameras: names from CAMERAS, in the order of the output.
        first: first frame of the list.
        last: frame after the last one; None for the end of the list.
        labeled: whether samples have boxes and lines; without, all are padding.
        empty_boxes: whether samples have the boxes without points, for evaluation; without, `gt_empty_mask` is False.

    Raises:
        ValueError: an unknown camera, missing or damaged info files, or frames that are not as expected.
        ConfigError: on reading a sample, a missing or damaged image.
    """

    needs_float32 = "camera matrices and boxes in meters"

    def __init__(
        self,
        root: str | Path,
        split: str,
        pipeline: CameraPipeline,
        range_m: float = 51.2,
        num_points: int = 11,
        max_boxes: int = 128,
        max_lines: int = 128,
        cameras: Sequence[str] = CAMERAS,
        first: int = 0,
        last: int | None = None,
        labeled: bool = True,
        empty_boxes: bool = False,
    ):
        for name in cameras:
            if name not in CAMERAS:
                raise ValueError(f"cameras: there is no {name!r}.{nearest(name, CAMERAS)}")
        self.cameras, self.labeled, self.empty_boxes = tuple(cameras), labeled, empty_boxes
        self.folder, info_folder = find_folders(Path(root))
        self.infos: list[Info] = load_infos(info_folder, split, self.cameras, first, last)
        self.maps = load_maps(info_folder, {info["town_name"] for info in self.infos})
        self.scenes = {folder: n for n, folder in enumerate(dict.fromkeys(info["folder"] for info in self.infos))}
        self.pipeline, self.range_m, self.num_points = pipeline, range_m, num_points
        self.max_boxes, self.max_lines = max_boxes, max_lines

    @property
    def normalization(self) -> dict[str, Any]:
        """That of the pipeline."""
        return self.pipeline.normalization

    def __len__(self) -> int:
        return len(self.infos)

    def token(self, index: int) -> str:
        """Bench2Drive's name of a frame.

        Args:
            index: number of the frame.

        Returns:
            `<folder>_<frame>`.
        """
        return frame_token(self.infos[index])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        info = self.infos[index]
        sensors = info["sensors"]
        camera_images = read_images([self.folder / sensors[c]["data_path"] for c in self.cameras], self.token(index))
        intrinsics = np.stack([np.asarray(sensors[name]["intrinsic"], float)[:3, :3] for name in self.cameras])
        for name, image, (x, y) in zip(self.cameras, camera_images, intrinsics[:, :2, 2]):
            if not (0 < x < image.width and 0 < y < image.height):
                raise ValueError(
                    f"{self.folder / sensors[name]['data_path']} has {image.width} x {image.height} pixels, but the "
                    f"optical axis of its intrinsic is at ({x:g}, {y:g}): is it of another size?"
                )
        images, matrices = self.pipeline(camera_images, intrinsics)
        lidar2ego, world2lidar = (np.asarray(sensors["LIDAR_TOP"][k]) for k in ("lidar2ego", "world2lidar"))
        lidar2cam = np.stack([np.linalg.inv(sensors[name]["cam2ego"]) @ lidar2ego for name in self.cameras])
        lines, line_labels = self.maps[info["town_name"]].lines_near(world2lidar, self.range_m, self.num_points)
        if not self.labeled:
            lines, line_labels = lines[:0], line_labels[:0]
        return {
            "images": images,
            "lidar2img": (matrices @ torch.from_numpy(lidar2cam)).float(),
            "intrinsics": matrices.float(),
            **self._boxes(info),
            **_padded("line", "points", lines, line_labels, np.hypot(*lines.T).min(0), self.max_lines),
            "ego_pose": torch.from_numpy(np.linalg.inv(world2lidar)),
            "timestamp": torch.tensor(info["frame_idx"] / 10, dtype=torch.float64),
            "scene": torch.tensor(self.scenes[info["folder"]]),
            "labeled": torch.tensor(self.labeled),
        }

    def _boxes(self, info: Info) -> dict[str, Tensor]:
        boxes = from_bench2drive(torch.from_numpy(np.array(info["gt_boxes"], float).reshape(-1, 9))).numpy()
        labels = np.array([class_of(str(name)) for name in info["gt_names"]], np.int64)
        keep = (labels >= 0) & (np.abs(boxes[:, :2]) < self.range_m).all(1) & self.labeled
        has_points = np.asarray(info["num_points"]) != 0
        distance = np.hypot(boxes[:, 0], boxes[:, 1])
        seen, empty = keep & has_points, keep & ~has_points & self.empty_boxes
        sample = _padded("gt", "boxes", boxes[seen], labels[seen], distance[seen], self.max_boxes)
        count = int(sample["gt_mask"].sum())
        others = _padded("gt", "boxes", boxes[empty], labels[empty], distance[empty], self.max_boxes - count)
        sample["gt_boxes"][count:], sample["gt_labels"][count:] = others["gt_boxes"], others["gt_labels"]
        return {**sample, "gt_empty_mask": torch.cat((torch.zeros(count, dtype=torch.bool), others["gt_mask"]))}


def _padded(kind: str, name: str, rows: Array, labels: Array, distance: Array, size: int) -> dict[str, Tensor]:
    """`size` rows: the nearest ones in their original order, then padding."""
    nearest_rows = np.sort(np.argsort(distance, kind="stable")[:size])
    values = torch.zeros((size, *rows.shape[1:]))
    values[: len(nearest_rows)] = torch.from_numpy(rows[nearest_rows]).float()
    numbers = torch.full((size,), -1)
    numbers[: len(nearest_rows)] = torch.from_numpy(labels[nearest_rows])
    return {f"{kind}_{name}": values, f"{kind}_labels": numbers, f"{kind}_mask": numbers >= 0}
