"""The nuScenes detection benchmark, configuration detection_cvpr_2019, for boxes in the frame of a LiDAR."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kd_runner.data.nuscenes.attributes import usual_attributes
from kd_runner.data.nuscenes.taxonomy import CLASSES
from kd_runner.geometry.boxes3d import inside, transform
from kd_runner.metrics.nuscenes_detection import ERRORS, NuScenesDetection

RANGES = {
    "car": 50.0,
    "truck": 50.0,
    "bus": 50.0,
    "trailer": 50.0,
    "construction_vehicle": 50.0,
    "pedestrian": 40.0,
    "motorcycle": 40.0,
    "bicycle": 40.0,
    "traffic_cone": 30.0,
    "barrier": 30.0,
}
"""Class to the distance from the ego car, in m, to which it counts."""


class NuScenesBenchmark(NuScenesDetection):
    """mAP, the five errors and NDS as nuscenes-devkit 1.2 measures them.

    Ranges are around the ego car, bicycles and motorcycles in bicycle racks are left out, objects of unknown velocity
    do not count in its error, attributes follow from class and speed.

    Args:
        class_names: names of the labels 0, 1, ...
        class_ranges: as `RANGES`; shorter ones, and fewer classes, for smaller worlds.

    Attributes:
        protocol: description of the protocol, for reports.
    """

    def __init__(self, class_names: Sequence[str] = CLASSES, class_ranges: Mapping[str, float] | None = None):
        ranges = {name: range_m for name, range_m in RANGES.items() if name in class_names}
        undefined = {"traffic_cone": ("aoe", "ave", "aae"), "barrier": ("ave", "aae")}
        super().__init__(
            class_names,
            class_ranges=ranges if class_ranges is None else class_ranges,
            round_range=True,
            errors=ERRORS,
            undefined={name: kinds for name, kinds in undefined.items() if name in class_names},
            half_turn=[name for name in class_names if name == "barrier"],
        )
        self.protocol = "detection_cvpr_2019, as nuscenes-devkit 1.2 measures it"
        if class_ranges is not None and dict(class_ranges) != RANGES:
            self.protocol += ", with other classes or ranges"

    def update(  # type: ignore[override]
        self,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        gt_boxes: Tensor,
        gt_labels: Tensor,
        gt_mask: Tensor,
        gt_velocity_mask: Tensor,
        gt_attributes: Tensor,
        lidar2local: Tensor,
        racks: Tensor,
        index: Tensor,
    ) -> None:
        """Add B samples.

        Args:
            boxes: predictions `(B, Q, 9)` as in `geometry.boxes3d`, in the LiDAR frame.
            scores: `(B, Q)`.
            labels: `(B, Q)`, -1 for none.
            gt_boxes: objects `(B, M, 9)`; this and what follows as `NuScenesLidar` gives it.
            gt_labels: `(B, M)`.
            gt_mask: `(B, M)` bool, False for padding.
            gt_velocity_mask: `(B, M)` bool, whether the velocity is known.
            gt_attributes: `(B, M)`, -1 for none.
            lidar2local: `(B, 4, 4)`, LiDAR frame to one at the ego car.
            racks: bicycle racks `(B, R, 7)`.
            index: `(B,)`, numbers of the samples in the data set.
        """
        parked = [self.class_names.index(name) for name in ("bicycle", "motorcycle") if name in self.class_names]
        kinds = torch.tensor(parked, device=labels.device)
        predicted_racked = torch.isin(labels, kinds) & _in_racks(boxes, racks)
        true_racked = torch.isin(gt_labels, kinds) & _in_racks(gt_boxes, racks)
        known = gt_velocity_mask[..., None]
        gt_boxes = torch.cat([gt_boxes[..., :7], gt_boxes[..., 7:].masked_fill(~known, float("nan"))], -1)
        super().update(
            transform(boxes.float(), lidar2local),
            scores,
            labels.masked_fill(predicted_racked, -1),
            transform(gt_boxes.float(), lidar2local),
            gt_labels,
            gt_mask & ~true_racked,
            index,
            usual_attributes(boxes, labels, self.class_names),
            gt_attributes,
        )


def _in_racks(boxes: Tensor, racks: Tensor) -> Tensor:
    """Whether centers of boxes `(B, N, 9)` lie in one of the racks `(B, R, 7)`: `(B, N)`."""
    pairs = [inside(center, rack[rack[:, 3] > 0]).any(0) for center, rack in zip(boxes, racks)]
    return torch.stack(pairs) if pairs else boxes.new_zeros(boxes.shape[:2], dtype=torch.bool)
