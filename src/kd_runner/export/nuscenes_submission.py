"""Detections as the JSON file that the nuScenes benchmark and its devkit take."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_runner.data.nuscenes.attributes import usual_attributes
from kd_runner.data.nuscenes.taxonomy import ATTRIBUTES, CLASSES
from kd_runner.errors import nearest
from kd_runner.geometry.boxes3d import transform
from kd_runner.metrics.nuscenes_benchmark import RANGES
from kd_runner.runtime import files

_META = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}


class NuScenesSubmission:
    """Collects detections sample by sample; `write` wants all samples of the split.

    Args:
        tokens: of the samples by index, as `[dataset.token(i) for i in range(len(dataset))]`.
        class_names: names of the labels; all of nuScenes' classes.
        class_ranges: m from the ego car; boxes beyond it are left out.
        max_predictions: best boxes of a sample that are kept.

    Raises:
        ValueError: nuScenes has no such class.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        class_names: Sequence[str] = CLASSES,
        class_ranges: Mapping[str, float] | None = None,
        max_predictions: int = 500,
    ):
        for name in class_names:
            if name not in CLASSES:
                raise ValueError(f"class_names: nuScenes has no class {name!r}.{nearest(name, CLASSES)}")
        ranges = RANGES if class_ranges is None else class_ranges
        self.tokens, self.class_names, self.max_predictions = list(tokens), list(class_names), max_predictions
        self.reach = torch.tensor([float(ranges.get(name, 0.0)) for name in class_names] + [0.0], dtype=torch.float64)
        self.results: dict[str, list[dict[str, Any]]] = {}

    def add(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, lidar2local: Tensor, lidar2global: Tensor, index: Tensor
    ) -> None:
        """Add B samples.

        Args:
            boxes: (B, Q, 9) as in `NuScenesBenchmark.update`.
            scores: (B, Q).
            labels: (B, Q), -1 for none.
            lidar2local: (B, 4, 4), as `NuScenesLidar` gives it.
            lidar2global: (B, 4, 4), likewise.
            index: (B,), numbers of the samples.
        """
        columns = [value.detach().cpu() for value in (boxes, scores, labels, lidar2local, lidar2global, index)]
        for box, score, label, local, pose, number in zip(*columns):
            token = self.tokens[int(number)]
            self.results[token] = self._rows(token, box, score, label, local, pose)

    def write(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Args:
            path: the file.

        Raises:
            ValueError: samples are missing.
        """
        if missing := len(set(self.tokens) - set(self.results)):
            raise ValueError(f"the submission lacks {missing} of {len(self.tokens)} samples: add the whole split")
        files.write_json(Path(path), {"meta": _META, "results": self.results})

    def _rows(
        self, token: str, boxes: Tensor, scores: Tensor, labels: Tensor, lidar2local: Tensor, lidar2global: Tensor
    ) -> list[dict[str, Any]]:
        boxes = boxes.double()
        distance = torch.linalg.vector_norm(transform(boxes, lidar2local)[:, :2], dim=1)
        near = torch.nonzero(distance < self.reach[labels])[:, 0]
        kept = near[scores[near].argsort(descending=True, stable=True)][: self.max_predictions]
        attributes = usual_attributes(boxes, labels, self.class_names)
        rows = []
        for k, box in zip(kept.tolist(), transform(boxes[kept], lidar2global.double()).tolist()):
            x, y, z, length, width, height, yaw, vx, vy = box
            attribute = int(attributes[k])
            rows.append({
                "sample_token": token,
                "translation": [x, y, z],
                "size": [width, length, height],
                "rotation": [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)],
                "velocity": [vx, vy],
                "detection_name": self.class_names[int(labels[k])],
                "detection_score": float(scores[k]),
                "attribute_name": ATTRIBUTES[attribute] if attribute >= 0 else "",
            })  # fmt: skip
        return rows
