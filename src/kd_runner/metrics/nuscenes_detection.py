"""Detection by center distance, the nuScenes way (Caesar et al. 2020, section 3.1; nuscenes-devkit 1.2)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kd_runner.errors import nearest
from kd_runner.metrics.row_state import RowStateMetric

Array = NDArray[Any]

ERRORS = ("ate", "ase", "aoe", "ave", "aae")
_RECALLS = np.linspace(0, 1, 101)
# A stored row: sample, class, score, 9 numbers of a box, attribute.
_SAMPLE, _CLASS, _SCORE, _BOX, _ATTRIBUTE, _COLUMNS = 0, 1, 2, slice(3, 12), 12, 13


class NuScenesDetection(RowStateMetric):
    """mAP over center distances, the errors of true positives, and NDS.

    A prediction matches the nearest free object of its class if that is closer than a threshold, best scores first.
    AP is the mean precision at recalls above `min_recall`, less `min_precision` and rescaled. Errors are those of
    matches at `tp_threshold`, averaged over recalls from `min_recall` to the highest reached: ATE in m; ASE, 1 - IoU of
    the sizes; AOE in radians; AVE in m/s; AAE, the fraction of wrong attributes.
    NDS = (5 mAP + sum of max(0, 1 - error)) / (5 + number of errors). A class that is nowhere counts AP 0 and error 1,
    as in the devkit.

    The state is rows of all samples, so that shards of a set, merged in any order, give what one process gives. A
    sample must be in one update only.

    Args:
        class_names: names of the labels 0, 1, ...
        class_ranges: meters from the sensor to which each evaluated class counts; classes not named do not.
        round_range: the range is a circle (nuScenes) instead of the square |x|, |y| (Bench2Drive).
        filter_predictions: leave out predictions out of range too, as nuScenes does. Bench2DriveZoo leaves out objects
            only, so that a prediction out of range is a false positive.
        thresholds: center distances in m.
        tp_threshold: the one of them whose matches have their errors measured.
        errors: which of ERRORS are part of NDS; Bench2Drive leaves out the last.
        undefined: class to the errors that it does not have (nuScenes: cones have no heading).
        half_turn: classes whose front and back look the same (nuScenes: barrier).
        min_recall: recall below which AP does not count.
        min_precision: precision that counts as 0 in AP.
        max_predictions: best predictions of a sample that count.
    """

    predictions: list[Tensor]
    objects: list[Tensor]

    def __init__(
        self,
        class_names: Sequence[str],
        class_ranges: Mapping[str, float],
        round_range: bool = False,
        filter_predictions: bool = True,
        thresholds: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
        tp_threshold: float = 2.0,
        errors: Sequence[str] = ERRORS[:4],
        undefined: Mapping[str, Sequence[str]] | None = None,
        half_turn: Sequence[str] = (),
        min_recall: float = 0.1,
        min_precision: float = 0.1,
        max_predictions: int = 500,
    ):
        super().__init__("predictions", "objects")
        self.class_names, self.class_ranges = list(class_names), dict(class_ranges)
        self.undefined = {name: set(kinds) for name, kinds in (undefined or {}).items()}
        for name in [*self.class_ranges, *self.undefined, *half_turn]:
            if name not in self.class_names:
                raise ValueError(f"{name!r} is not among class_names.{nearest(name, self.class_names)}")
        for error in [*errors, *(e for kinds in self.undefined.values() for e in kinds)]:
            if error not in ERRORS:
                raise ValueError(f"errors: there is no {error!r}.{nearest(error, ERRORS)}")
        if tp_threshold not in thresholds:
            raise ValueError(f"tp_threshold={tp_threshold} is not among thresholds={list(thresholds)}")
        self.round_range, self.filter_predictions = round_range, filter_predictions
        self.thresholds, self.tp_threshold, self.errors = list(thresholds), tp_threshold, list(errors)
        self.half_turn, self.max_predictions = set(half_turn), max_predictions
        self.constant_levels = {"map": 0.0, "nds": 0.0}  # of finding nothing
        self.min_recall, self.min_precision = min_recall, min_precision

    def update(
        self,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        gt_boxes: Tensor,
        gt_labels: Tensor,
        gt_mask: Tensor,
        index: Tensor,
        attributes: Tensor | None = None,
        gt_attributes: Tensor | None = None,
    ) -> None:
        """Take B samples.

        Args:
            boxes: predictions (B, Q, 9) as in `geometry.boxes3d`.
            scores: (B, Q).
            labels: (B, Q), -1 for none.
            gt_boxes: objects (B, M, 9).
            gt_labels: (B, M).
            gt_mask: (B, M) bool, False for padding.
            index: numbers of the samples in the data set (B,), below 2^24.
            attributes: of the predictions (B, Q), -1 for none; needed for the error `aae` alone.
            gt_attributes: of the objects (B, M), -1 for none.
        """
        if "aae" in self.errors and (attributes is None or gt_attributes is None):
            raise ValueError("errors has 'aae', which needs attributes and gt_attributes among the inputs")
        self.predictions.append(_rows(boxes, scores, labels, labels >= 0, index, attributes))
        self.objects.append(_rows(gt_boxes, torch.zeros_like(gt_labels), gt_labels, gt_mask, index, gt_attributes))

    def compute(self) -> dict[str, Tensor]:
        """Compute the metric of all samples.

        Returns:
            `nds`, `map`, `map/<m>` at each distance, the mean of each error as `mate`, ..., and per class `ap/<class>`,
            `ate/<class>`, ...
        """
        predictions, objects = (self.table(state, _COLUMNS) for state in (self.predictions, self.objects))
        predictions = predictions[_best(predictions, self.max_predictions)]
        aps, errors = {}, {}
        for name, reach in self.class_ranges.items():
            label = self.class_names.index(name)
            predicted = predictions[predictions[:, _CLASS] == label]
            true = objects[objects[:, _CLASS] == label]
            true = true[self._in_range(true, reach)]
            if self.filter_predictions:
                predicted = predicted[self._in_range(predicted, reach)]
            aps[name], errors[name] = self._measure(name, predicted, true)
        at_distances = np.mean(list(aps.values()), 0)
        mean_ap = float(at_distances.mean())
        means = {error: _nanmean([errors[name][error] for name in errors]) for error in self.errors}
        score = (5 * mean_ap + sum(max(0.0, 1 - mean) for mean in means.values())) / (5 + len(means))
        result = {"nds": score, "map": mean_ap}
        result |= {f"map/{distance:g}": float(ap) for distance, ap in zip(self.thresholds, at_distances)}
        result |= {f"m{error}": mean for error, mean in means.items()}
        result |= {f"ap/{name}": float(np.mean(ap)) for name, ap in aps.items()}
        result |= {f"{error}/{name}": errors[name][error] for error in self.errors for name in errors}
        return {key: torch.tensor(value, dtype=torch.float32, device=self.device) for key, value in result.items()}

    def _in_range(self, rows: Array, reach: float) -> Array:
        x, y = rows[:, _BOX][:, :2].T
        return np.hypot(x, y) <= reach if self.round_range else np.maximum(np.abs(x), np.abs(y)) <= reach

    def _measure(self, name: str, predicted: Array, true: Array) -> tuple[list[float], dict[str, float]]:
        """AP of a class at each distance, and its errors."""
        # As the devkit orders: highest scores first; of equal ones the later.
        predicted = predicted[np.lexsort((np.arange(len(predicted)), predicted[:, _SCORE]))[::-1]]
        matches = match(predicted, true, self.thresholds)
        aps = [self._average_precision(row >= 0, len(true)) for row in matches]
        row = matches[self.thresholds.index(self.tp_threshold)]
        hit = row >= 0
        a, b = predicted[hit], true[row[hit]]
        period = np.pi if name in self.half_turn else 2 * np.pi
        values = {error: box_errors(error, a, b, period) for error in self.errors}
        means = {
            error: float("nan")
            if error in self.undefined.get(name, ())
            else self._mean_error(value, predicted, hit, len(true))
            for error, value in values.items()
        }
        return aps, means

    def _average_precision(self, hit: Array, count: int) -> float:
        if not hit.any():
            return 0.0
        true = np.cumsum(hit)
        precision = np.interp(_RECALLS, true / count, true / np.arange(1, len(hit) + 1), right=0)
        above = precision[round(100 * self.min_recall) + 1 :] - self.min_precision
        return float(np.clip(above, 0, None).mean()) / (1 - self.min_precision)

    def _mean_error(self, values: Array, predicted: Array, hit: Array, count: int) -> float:
        """Running mean of an error over matches, read at 101 recalls by way of the score, then averaged."""
        if not hit.any():
            return 1.0
        recall = np.cumsum(hit) / count
        score = np.interp(_RECALLS, recall, predicted[:, _SCORE], right=0)
        reached = np.flatnonzero(score)
        first, last = round(100 * self.min_recall) + 1, reached[-1] if len(reached) else 0
        if last < first:
            return 1.0
        known = ~np.isnan(values)
        running = np.cumsum(np.where(known, values, 0)) / np.maximum(np.cumsum(known), 1)
        running = running if known.any() else np.ones_like(running)
        at_recall = np.interp(score[::-1], predicted[hit, _SCORE][::-1], running[::-1])[::-1]
        return float(at_recall[first : last + 1].mean())


def match(predicted: Array, true: Array, thresholds: Sequence[float]) -> Array:
    """Match predictions to objects, in the order of the predictions.

    Samples are independent, so the n-th predictions of all samples choose at once.

    Args:
        predicted: rows (P, 13) of one class, in the order in which they choose.
        true: rows (M, 13) of the class.
        thresholds: T largest distances of the centers, in meters.

    Returns:
        For each threshold and each prediction, the row of the object that it takes, or -1: (T, P).
    """
    matches = np.full((len(thresholds), len(predicted)), -1)
    if not len(predicted) or not len(true):
        return matches
    samples = np.unique(np.concatenate([predicted[:, _SAMPLE], true[:, _SAMPLE]]))
    rows, columns = (np.searchsorted(samples, which[:, _SAMPLE]) for which in (predicted, true))
    turn, slot = _turns(rows), _turns(columns)
    table = np.full((len(samples), slot.max() + 1), -1)
    table[columns, slot] = np.arange(len(true))
    centers = np.append(true[:, _BOX][:, :2], [[np.inf, np.inf]], 0)[table]
    free = np.broadcast_to(table >= 0, (len(thresholds), *table.shape)).copy()
    limits = np.array(thresholds)[:, None]
    for number in range(turn.max() + 1):
        now = np.flatnonzero(turn == number)
        sample = rows[now]
        gap = np.hypot(*np.moveaxis(centers[sample] - predicted[now][:, _BOX][:, None, :2], -1, 0))
        gap = np.where(free[:, sample], gap, np.inf)
        nearest_one = gap.argmin(-1)
        taken = np.take_along_axis(gap, nearest_one[..., None], -1)[..., 0] < limits
        kind, which = np.nonzero(taken)
        matches[kind, now[which]] = table[sample[which], nearest_one[kind, which]]
        free[kind, sample[which], nearest_one[kind, which]] = False
    return matches


def box_errors(error: str, predicted: Array, true: Array, period: float = 2 * np.pi) -> Array:
    """One of ERRORS between pairs of boxes.

    Args:
        error: its name.
        predicted: rows (n, 13).
        true: rows (n, 13).
        period: headings are compared modulo this, in radians.

    Returns:
        (n,), nan where an object has no attribute.
    """
    a, b = predicted[:, _BOX], true[:, _BOX]
    if error == "ate":
        return np.hypot(*(a - b)[:, :2].T)
    if error == "ase":
        common = np.minimum(a[:, 3:6], b[:, 3:6]).prod(1)
        return 1 - common / (a[:, 3:6].prod(1) + b[:, 3:6].prod(1) - common)
    if error == "aoe":
        return np.abs((a[:, 6] - b[:, 6] + period / 2) % period - period / 2)
    if error == "ave":
        return np.hypot(*(a - b)[:, 7:9].T)
    wrong = (predicted[:, _ATTRIBUTE] != true[:, _ATTRIBUTE]).astype(float)
    return np.where(true[:, _ATTRIBUTE] < 0, np.nan, wrong)  # objects without an attribute are not asked for one


def _rows(
    boxes: Tensor, scores: Tensor, labels: Tensor, mask: Tensor, index: Tensor, attributes: Tensor | None
) -> Tensor:
    """Chosen boxes as rows of numbers, one after the other (n * 13,)."""
    attribute = torch.full_like(labels, -1) if attributes is None else attributes
    columns = [index[:, None].expand_as(labels), labels, scores, *boxes.unbind(-1), attribute]
    return torch.stack([column.detach().float() for column in columns], -1)[mask].flatten()


def _best(rows: Array, count: int) -> Array:
    """Mask of the `count` highest scores of each sample."""
    order = np.lexsort((-rows[:, _SCORE], rows[:, _SAMPLE]))
    mask = np.zeros(len(rows), bool)
    mask[order[_turns(rows[order, _SAMPLE]) < count]] = True
    return mask


def _turns(groups: Array) -> Array:
    """For each entry, how many of its group come before it."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(groups) else np.zeros(0, int)
    turn = np.zeros(len(groups), int)
    turn[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    return turn


def _nanmean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
