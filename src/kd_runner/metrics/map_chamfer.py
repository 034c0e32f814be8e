"""Map lines by chamfer distance, the way of HDMapNet, VectorMapNet and MapTR."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kd_runner.errors import ConfigError
from kd_runner.metrics.row_state import RowStateMetric

Array = NDArray[Any]
_SAMPLE, _CLASS, _SCORE, _POINTS = 0, 1, 2, 3


class MapChamfer(RowStateMetric):
    """AP of lines per class, averaged over chamfer thresholds (Liao et al. 2023, "MapTR", section 4.1).

    Both lines are spread to `num_samples` points; their distance is the mean of the two mean distances from a point of
    one to the nearest of the other, so the direction of a line does not matter. A prediction, best scores first, is
    true if its nearest object of the class is closer than the threshold and not taken before; it has no second choice.
    AP is the area under the precision envelope. A class without objects is nan and left out of the mean.

    Args:
        class_names: names of the labels 0, 1, ...
        num_points: points of a line, predicted or true.
        thresholds: chamfer distances in m.
        num_samples: points to compare.
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
        """Take B samples.

        Args:
            points, scores, labels: predictions (B, Q, P, 2 or more), (B, Q), (B, Q); meters; label -1 for none.
            line_points, line_labels, line_mask: true lines (B, M, P, 2 or more), (B, M), (B, M).
            index: numbers of the samples in the data set (B,), below 2^24; each in one update only.
        """
        for name, lines in (("points", points), ("line_points", line_points)):
            if lines.shape[2] != self.num_points:
                raise ConfigError(
                    f"metric: {name} has lines of {lines.shape[2]} points, num_points is {self.num_points}"
                )
        self.predictions.append(_rows(points, scores, labels, labels >= 0, index))
        self.objects.append(_rows(line_points, torch.zeros_like(line_labels), line_labels, line_mask, index))

    def compute(self) -> dict[str, Tensor]:
        """`chamfer_map`, its part at each threshold, `chamfer_map/<m>`, and `chamfer_ap/<class>`."""
        predictions, objects = (
            self.table(state, _POINTS + 2 * self.num_points) for state in (self.predictions, self.objects)
        )
        aps = np.full((len(self.class_names), len(self.thresholds)), np.nan)
        for label in range(len(self.class_names)):
            true = objects[objects[:, _CLASS] == label]
            if len(true):
                found = predictions[predictions[:, _CLASS] == label]
                found = found[np.argsort(-found[:, _SCORE], kind="stable")]
                which, distance = self._nearest(found, true)
                aps[label] = [_area(_first(which, distance < limit), len(true)) for limit in self.thresholds]
        known = aps[~np.isnan(aps).any(1)]
        result = {"chamfer_map": float(known.mean()) if len(known) else float("nan")}
        for number, limit in enumerate(self.thresholds):
            result[f"chamfer_map/{limit:g}"] = float(known[:, number].mean()) if len(known) else float("nan")
        result |= {f"chamfer_ap/{name}": float(ap.mean()) for name, ap in zip(self.class_names, aps)}
        return {key: torch.tensor(value, dtype=torch.float32, device=self.device) for key, value in result.items()}

    def _nearest(self, found: Array, true: Array) -> tuple[Array, Array]:
        """For each prediction (n,), the nearest line of its sample or -1, and its distance."""
        which, distance = np.full(len(found), -1), np.full(len(found), np.inf)
        for sample in np.intersect1d(found[:, _SAMPLE], true[:, _SAMPLE]):
            a, b = np.flatnonzero(found[:, _SAMPLE] == sample), np.flatnonzero(true[:, _SAMPLE] == sample)
            gaps = chamfer(self._lines(found[a]), self._lines(true[b]))
            which[a], distance[a] = b[gaps.argmin(1)], gaps.min(1)
        return which, distance

    def _lines(self, rows: Array) -> Array:
        return spread(rows[:, _POINTS:].reshape(len(rows), self.num_points, 2), self.num_samples)


def spread(lines: Array, count: int) -> Array:
    """`count` points (n, count, 2) at even distances along polylines (n, P, 2)."""
    steps = np.hypot(*np.moveaxis(np.diff(lines, axis=1), -1, 0))
    length = np.concatenate([np.zeros((len(lines), 1)), np.cumsum(steps, 1)], 1)
    at = length[:, -1:] * np.linspace(0, 1, count)
    # The piece that each place lies on, and how far along it.
    piece = np.clip((at[:, :, None] >= length[:, None, 1:]).sum(-1), 0, lines.shape[1] - 2)
    begin, step = np.take_along_axis(length, piece, 1), np.take_along_axis(steps, piece, 1)
    share = np.where(step > 0, (at - begin) / np.where(step > 0, step, 1), 0)[..., None]
    first, second = (np.take_along_axis(lines, (piece + k)[..., None], 1) for k in (0, 1))
    return first + share * (second - first)


def chamfer(a: Array, b: Array) -> Array:
    """Distances (n, m) between lines a (n, P, 2) and b (m, P, 2): mean of both directions."""
    first, second = (torch.from_numpy(np.ascontiguousarray(lines)).reshape(-1, 2) for lines in (a, b))
    # Not by matrix product: it loses digits where the distance is small.
    gaps = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    gaps = gaps.view(len(a), a.shape[1], len(b), b.shape[1])
    return ((gaps.amin(3).mean(1) + gaps.amin(1).mean(2)) / 2).numpy()


def _first(which: Array, close: Array) -> Array:
    """Mask of the predictions that are close and the first to take their object."""
    hit = np.zeros(len(which), bool)
    candidates = np.flatnonzero(close)
    hit[candidates[np.unique(which[candidates], return_index=True)[1]]] = True
    return hit


def _area(hit: Array, count: int) -> float:
    """Area under the envelope of precision over recall; `hit` in the order of falling scores."""
    true = np.cumsum(hit)
    recall = np.concatenate([[0.0], true / count, [1.0]])
    precision = np.concatenate([[0.0], true / np.arange(1, len(hit) + 1), [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * envelope[1:]).sum())


def _rows(points: Tensor, scores: Tensor, labels: Tensor, mask: Tensor, index: Tensor) -> Tensor:
    """Chosen lines as rows of numbers, one after the other (n * (3 + 2 P),)."""
    columns = [index[:, None].expand_as(labels), labels, scores]
    head = torch.stack([column.detach().float() for column in columns], -1)
    return torch.cat([head, points[..., :2].detach().float().flatten(2)], -1)[mask].flatten()
