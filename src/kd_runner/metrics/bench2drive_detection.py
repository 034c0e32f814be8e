"""Detection on Bench2Drive (Jia et al. 2024, arXiv 2406.03877), as Bench2DriveZoo measures it."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from kd_runner.errors import nearest
from kd_runner.metrics.nuscenes_detection import NuScenesDetection

RANGES = {
    "car": 50.0,
    "van": 50.0,
    "truck": 50.0,
    "bicycle": 40.0,
    "traffic_sign": 30.0,
    "traffic_cone": 30.0,
    "traffic_light": 30.0,
    "pedestrian": 40.0,
}
"""Evaluated classes and the half side of the square around the sensor in which their objects count, in meters."""

MIN_SCORE = 0.2
PROTOCOLS = {
    "official": "Bench2DriveZoo's: predictions out of range count as false positives, objects without points count, "
    f"predictions need a score above {MIN_SCORE}",
    "in_range": "not Bench2DriveZoo's: predictions out of range and objects without points are left out, predictions "
    "of every score count",
}
"""Name of a protocol to its description."""


class Bench2DriveDetection(NuScenesDetection):
    """mAP over center distances, four errors of true positives (no attributes), and NDS.

    Args:
        class_names: names of the labels 0, 1, ...
        class_ranges: as `RANGES`.
        protocol: `official` or `in_range`, see `PROTOCOLS`.

    Attributes:
        protocol: description of the protocol, for reports.

    Raises:
        ValueError: an unknown protocol or class.
    """

    def __init__(
        self, class_names: Sequence[str], class_ranges: Mapping[str, float] = RANGES, protocol: str = "official"
    ):
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol: there is no {protocol!r}.{nearest(protocol, PROTOCOLS)}")
        self.is_official = protocol == "official"
        super().__init__(class_names, class_ranges, filter_predictions=not self.is_official)
        self.protocol = PROTOCOLS[protocol]

    def update(  # type: ignore[override]
        self,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        gt_boxes: Tensor,
        gt_labels: Tensor,
        gt_mask: Tensor,
        gt_empty_mask: Tensor,
        index: Tensor,
    ) -> None:
        """Add B samples.

        Args:
            boxes: predictions `(B, Q, 9)` as in `geometry.boxes3d`.
            scores: `(B, Q)`.
            labels: `(B, Q)`, -1 for none.
            gt_boxes: objects `(B, M, 9)`.
            gt_labels: `(B, M)`.
            gt_mask: `(B, M)`, True for objects with points.
            gt_empty_mask: `(B, M)`, True for objects without points.
            index: `(B,)`, numbers of the samples in the data set, below 2^24.
        """
        if self.is_official:
            labels = labels.masked_fill(scores <= MIN_SCORE, -1)
            gt_mask = gt_mask | gt_empty_mask
        super().update(boxes, scores, labels, gt_boxes, gt_labels, gt_mask, index)
