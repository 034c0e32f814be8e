"""Average precision of map lines by Chamfer distance, as in HDMapNet, VectorMapNet and MapTR."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kd_runner.metrics.row_state import RowStateMetric

Array = NDArray[Any]
_SAMPLE, _CLASS, _SCORE, _POINTS = 0, 1, 2, 3


class MapChamfer(RowStateMetric):
    """AP of lines per class, averaged over Chamfer thresholds.

        d(a, b) = (mean over points p of a of min |p - q| + mean over points q of b of min |q - p|) / 2

    Both lines are resampled to `num_samples` points; the direction of a line does not matter. In the order of falling
    scores, a prediction is a true positive if its nearest object of the class in the sample is closer than the
    threshold and not matched before; it has no second choice. AP is the area under the precision envelope. A class
    without objects is nan and left out of the mean.

    Args:
        class_names: names of the labels 0, 1, ...
        num_points: points P per line, predicted or true.
        thresholds: Chamfer distances in meters.
        num_samples: points per line in the comparison.

    Source:
        Liao et al., "MapTR", ICLR 2023, section 4.1.
    """

    predictions: list[Tensor]
    objects: list[Tensor]

    def __init__(
        self,
        class_names: Sequence[str],
        num_points: int = 11,
        thresholds: Sequence[float] = (0.5, 1.0, 1.5),
        num_samples: int = 100,
    ):
        super().__init__("predictions", "objects")
        self.class_names, self.num_points = list(class_names), num_points
        self.thresholds, self.num_samples = list(thresholds), num_samples

    def update(
        self,
        points: Tensor,
        scores: Tensor,
        labels: Tensor,
        line_points: Tensor,
        line_labels: Tensor,
        line_mask: Tensor,
        index: Tensor,
    ) -> None:
        """Add B samples.

        Args:
            points: predicted lines `(B, Q, P, 2 or more)`, meters.
            scores: `(B, Q)`.
            labels: `(B, Q)`, -1 for none.
            line_points: true lines `(B, M, P, 2 or more)`, meters.
            line_labels: `(B, M)`.
            line_mask: `(B, M)` bool, False for padding.
            index: numbers of the samples in the data set `(B,)`, below 2^24; each in one update only.

        Raises:
            ValueError: lines do not have `num_points` points.
        """
        for name, lines in (("points", points), ("line_points", line_points)):
            if lines.shape[2] != self.num_points:
                raise ValueError(f"{name} has lines of {lines.shape[2]} points, num_points is {self.num_points}")
        self.predictions.append(_rows(points, scores, labels, labels >= 0, index))
        self.objects.append(_rows(line_points, torch.zeros_like(line_labels), line_labels, line_mask, index))

    def compute(self) -> dict[str, Tensor]:
        """Compute the metric of all samples.

        Returns:
            `chamfer_map`, its value at each threshold, `chamfer_map/<m>`, and `chamfer_ap/<class>`; all in 0..1.
        """
        columns = _POINTS + 2 * self.num_points
        predictions, objects = self.table(self.predictions, columns), self.table(self.objects, columns)
        aps = np.full((len(self.class_names), len(self.thresholds)), np.nan)
        for label in range(len(self.class_names)):
            true = objects[objects[:, _CLASS] == label]
            if len(true):
                predicted = predictions[predictions[:, _CLASS] == label]
                predicted = predicted[np.argsort(-predicted[:, _SCORE], kind="stable")]
                nearest, distance = self._nearest(predicted, true)
                aps[label] = [
                    _average_precision(_true_positives(nearest, distance < threshold), len(true))
                    for threshold in self.thresholds
                ]
        known = aps[~np.isnan(aps).any(1)]
        result = {"chamfer_map": float(known.mean()) if len(known) else float("nan")}
        for i, threshold in enumerate(self.thresholds):
            result[f"chamfer_map/{threshold:g}"] = float(known[:, i].mean()) if len(known) else float("nan")
        result |= {f"chamfer_ap/{name}": float(ap.mean()) for name, ap in zip(self.class_names, aps)}
        return {key: torch.tensor(value, dtype=torch.float32, device=self.device) for key, value in result.items()}

    def _nearest(self, predicted: Array, true: Array) -> tuple[Array, Array]:
        """For each prediction `(n,)`, the row of the nearest line of its sample, -1 for none, and the distance."""
        nearest, distance = np.full(len(predicted), -1), np.full(len(predicted), np.inf)
        for sample in np.intersect1d(predicted[:, _SAMPLE], true[:, _SAMPLE]):
            a, b = np.flatnonzero(predicted[:, _SAMPLE] == sample), np.flatnonzero(true[:, _SAMPLE] == sample)
            distances = chamfer(self._lines(predicted[a]), self._lines(true[b]))
            nearest[a], distance[a] = b[distances.argmin(1)], distances.min(1)
        return nearest, distance

    def _lines(self, rows: Array) -> Array:
        return resample(rows[:, _POINTS:].reshape(len(rows), self.num_points, 2), self.num_samples)


def resample(lines: Array, count: int) -> Array:
    """Points at equal distances along polylines.

    Args:
        lines: `(n, P, 2)`.
        count: points of each result.

    Returns:
        `(n, count, 2)`.
    """
    steps = np.hypot(*np.moveaxis(np.diff(lines, axis=1), -1, 0))
    length = np.concatenate([np.zeros((len(lines), 1)), np.cumsum(steps, 1)], 1)
    position = length[:, -1:] * np.linspace(0, 1, count)
    # The segment of each position, and the fraction along it.
    segment = np.clip((position[:, :, None] >= length[:, None, 1:]).sum(-1), 0, lines.shape[1] - 2)
    start, step = np.take_along_axis(length, segment, 1), np.take_along_axis(steps, segment, 1)
    fraction = np.where(step > 0, (position - start) / np.where(step > 0, step, 1), 0)[..., None]
    first, second = (np.take_along_axis(lines, (segment + k)[..., None], 1) for k in (0, 1))
    return first + fraction * (second - first)


def chamfer(a: Array, b: Array) -> Array:
    """Chamfer distances between lines: the mean of both directions.

    Args:
        a: `(n, P, 2)`.
        b: `(m, P, 2)`.

    Returns:
        `(n, m)`, in the unit of the points.
    """
    first, second = (torch.from_numpy(np.ascontiguousarray(lines)).reshape(-1, 2) for lines in (a, b))
    # Not by matrix product, which loses digits of small distances.
    gaps = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    gaps = gaps.view(len(a), a.shape[1], len(b), b.shape[1])
    return ((gaps.amin(3).mean(1) + gaps.amin(1).mean(2)) / 2).numpy()


def _true_positives(nearest: Array, close: Array) -> Array:
    """Mask of the predictions that are close to their nearest object and the first ones to match it."""
    hit = np.zeros(len(nearest), bool)
    candidates = np.flatnonzero(close)
    hit[candidates[np.unique(nearest[candidates], return_index=True)[1]]] = True
    return hit


def _average_precision(hit: Array, count: int) -> float:
    """Area under the envelope of precision over recall; `hit` in the order of falling scores, of `count` objects."""
    true = np.cumsum(hit)
    recall = np.concatenate([[0.0], true / count, [1.0]])
    precision = np.concatenate([[0.0], true / np.arange(1, len(hit) + 1), [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * envelope[1:]).sum())


def _rows(points: Tensor, scores: Tensor, labels: Tensor, mask: Tensor, index: Tensor) -> Tensor:
    """Masked lines as rows of 3 + 2 P numbers, flattened."""
    columns = [index[:, None].expand_as(labels), labels, scores]
    head = torch.stack([column.detach().float() for column in columns], -1)
    return torch.cat([head, points[..., :2].detach().float().flatten(2)], -1)[mask].flatten()
