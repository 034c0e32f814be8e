"""What driving nets see: cameras and the view from above; truth, teacher and student side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_runner.callbacks.scheduled_visualizer import ScheduledVisualizer
from kd_runner.data.voc.transforms import to_pixels
from kd_runner.distillation.module import Distiller
from kd_runner.errors import ConfigError, nearest
from kd_runner.geometry.boxes3d import corners
from kd_runner.visualization.driving import DrivingFigure, View, stack

_BOX_FEATURES = {"boxes": "boxes", "scores": "scores", "labels": "labels"}
_LINE_FEATURES = {name: name for name in ("line_points", "line_scores", "line_labels")}
_BOX_KEYS = {"boxes": "gt_boxes", "labels": "gt_labels", "mask": "gt_mask"}
_LINE_KEYS = {name: name for name in ("line_points", "line_labels", "line_mask")}
_CAMERA_KEYS = {name: name for name in ("images", "lidar2img")}
_POINT_KEYS = {name: name for name in ("points", "num_points")}


class DetectionVisualizer(ScheduledVisualizer):
    """A figure each of several validation samples, spread evenly over the set.

    Args:
        num_samples: figures.
        every_n_epochs: how often, in epochs; only after a validation.
        class_names: of the labels.
        line_names: of the labels.
        threshold: score from which predictions are drawn.
        lines: whether there are map lines to draw.
        cameras: whether there are pictures.
        points: whether there are LiDAR points.
        heat_map: feature of class logits (B, C, X, Y) that span the range, or None.
        features: other names than the defaults for features `boxes` (B, Q, 7 or more), `scores`, `labels` (B, Q), -1
            for none; `line_points` (B, Q, P, 2 or more), `line_scores`, `line_labels`.
        keys: other names for what the batch has: `boxes`, `labels`, `mask` (default `gt_*`), `line_points`,
            `line_labels`, `line_mask`, `images` (B, cameras, 3, H, W) normalized, `lidar2img`, `points` (B, N, 3 or
            more), `num_points` (B,).
        figure: arguments of `visualization.driving.DrivingFigure`.

    Raises:
        ConfigError: a name in `features` or `keys` that nothing has.
    """

    def __init__(
        self,
        num_samples: int,
        every_n_epochs: int,
        class_names: Sequence[str],
        line_names: Sequence[str] = (),
        threshold: float = 0.3,
        lines: bool = True,
        cameras: bool = True,
        points: bool = False,
        heat_map: str | None = None,
        features: Mapping[str, str] | None = None,
        keys: Mapping[str, str] | None = None,
        figure: Mapping[str, Any] | None = None,
    ):
        super().__init__(every_n_epochs)
        self.threshold, self.num_samples = threshold, num_samples
        self.cameras, self.points = cameras, points
        self.features = _named("features", _BOX_FEATURES | (_LINE_FEATURES if lines else {}), features)
        if heat_map is not None:
            self.features["heat_map"] = heat_map
        known = _BOX_KEYS | (_LINE_KEYS if lines else {}) | (_CAMERA_KEYS if cameras else {})
        self.keys = _named("keys", known | (_POINT_KEYS if points else {}), keys)
        self.figure = DrivingFigure(class_names, line_names, **(figure or {}))

    def draw(self, module: Distiller, data: Any) -> np.ndarray:
        """Draw the validation samples.

        Args:
            module: holds the nets.
            data: the data module.

        Returns:
            (rows, columns, 3) uint8.
        """
        chosen = range(len(data.val))[:: max(1, len(data.val) // self.num_samples)][: self.num_samples]
        batch = module.transfer_batch_to_device(data.collate([data.val[i] for i in chosen]), module.device, 0)
        truth = {role: self._of_batch(batch, key) for role, key in self.keys.items()}
        predictions = self.features_of_nets(module, batch, self.features.values())
        return stack([self._figure(i, truth, predictions) for i in range(len(chosen))])

    def _figure(
        self, i: int, truth: Mapping[str, Tensor], predictions: Mapping[str, Mapping[str, Tensor]]
    ) -> np.ndarray:
        views = [self._view("truth", {role: _array(value[i]) for role, value in truth.items()})]
        for name, features in predictions.items():
            views.append(
                self._view(name, {role: _array(features[feature][i]) for role, feature in self.features.items()})
            )
        images = matrices = points = None
        if self.cameras:
            images = (_array(to_pixels(truth["images"][i].float())) * 255).round().astype(np.uint8)
            images, matrices = images.transpose(0, 2, 3, 1), _array(truth["lidar2img"][i])
        if self.points:
            points = _array(truth["points"][i, : int(truth["num_points"][i])])
        return self.figure.draw(views, images, matrices, points)

    def _view(self, name: str, values: Mapping[str, np.ndarray]) -> View:
        """Truth has masks where nets have scores."""
        keep = values["mask"] if "mask" in values else self._drawn(values["scores"], values["labels"])
        content: dict[str, Any] = {}
        if "line_points" in values:
            labels = values["line_labels"]
            lines = values["line_mask"] if "line_mask" in values else self._drawn(values["line_scores"], labels)
            content = {"lines": values["line_points"][lines], "line_labels": labels[lines]}
        if "heat_map" in values:
            content["heat"] = 1 / (1 + np.exp(-values["heat_map"].max(0)))
        boxes = corners(torch.from_numpy(values["boxes"][keep])).numpy()
        return View(name, boxes, values["labels"][keep], **content)

    def _drawn(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return (scores >= self.threshold) & (labels >= 0)

    @staticmethod
    def _of_batch(batch: Mapping[str, Tensor], key: str) -> Tensor:
        if key not in batch:
            raise ConfigError(f"callbacks: the batch has no {key!r} to draw.{nearest(key, batch)}")
        return batch[key]


def _named(argument: str, defaults: Mapping[str, str], changes: Mapping[str, str] | None) -> dict[str, str]:
    for role in changes or {}:
        if role not in defaults:
            raise ConfigError(f"callbacks: {argument} has no {role!r} here.{nearest(role, defaults)}")
    return {**defaults, **(changes or {})}


def _array(value: Tensor) -> np.ndarray:
    """On the CPU; half precisions, which numpy lacks or rounds, as float32."""
    return (value.float() if value.is_floating_point() else value).cpu().numpy()
