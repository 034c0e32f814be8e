"""Quality of person masks in given boxes: IoU per class, and rates of ROIs with the right person."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from kd_runner.geometry.rois import VOID, labels
from kd_runner.metrics.confusion import confusion_matrix, constant_levels, iou_per_class

CLASSES = ("background", "target", "non_target")


class InstanceROI(Metric):
    """IoU of background, target and non-target over all pixels of the set, and rates over its ROIs.

    The states are counts, so parts of a set, added in any order, give what one process gives.

    Args:
        detection_thresholds: a ROI is detected if its target IoU is above the threshold, 0..1.

    Attributes:
        constant_levels: what a constant prediction would have: of `target_iou_mean` all pixels of every ROI as target,
            of `miou` the most frequent class; set by `compute`.
    """

    higher_is_better = True
    full_state_update = False
    confmat: Tensor
    detected: Tensor
    iou_sum: Tensor
    rois: Tensor
    filled: Tensor
    separated: Tensor

    def __init__(self, detection_thresholds: Sequence[float] = (0.5, 0.7)):
        super().__init__()
        self.detection_thresholds = list(detection_thresholds)
        self.add_state("confmat", torch.zeros(3, 3, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("detected", torch.zeros(len(self.detection_thresholds), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("iou_sum", torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("rois", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.constant_levels: dict[str, float] = {}
        self.add_state("filled", torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("separated", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor, roi_mask: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (R, 3, h, w) of all B * N ROIs or of the valid ones.
            target: labels (B, N, h, w), 255 for void.
            roi_mask: (B, N) bool, False for padding.
        """
        logits, target = labels(logits, target, roi_mask)
        preds, known = logits.argmax(1), target != VOID
        self.confmat += confusion_matrix(preds[known], target[known], 3)
        predicted, truth = (preds == 1) & known, target == 1
        union = (predicted | truth).flatten(1).sum(1)
        hits = (predicted & truth).flatten(1).sum(1)
        iou = torch.where(union > 0, hits / union.clamp(min=1), 1.0)
        self.detected += torch.stack([(iou > threshold).sum() for threshold in self.detection_thresholds])
        self.iou_sum += iou.double().sum()
        self.filled += (truth.flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)).double().sum()
        self.rois += len(iou)
        person = known & (target > 0)
        self.separated += ((1 + logits[:, 1:].argmax(1)) == target)[person].sum()

    def compute(self) -> dict[str, Tensor]:
        """Compute the values, all in 0..1.

        Returns:
            `target_iou_mean`, mean over ROIs (the published protocol's mIoU); `instance_separation`, fraction of true
            foreground pixels with the right one of target and non-target; `detection_<percent>`; `miou` of the three
            classes and `iou/<class>`. A class that does not occur is nan and left out of the mean.
        """
        iou = iou_per_class(self.confmat)
        levels = constant_levels(self.confmat)
        self.constant_levels = {"target_iou_mean": float(self.filled / self.rois), "miou": levels["miou"]}
        rates = zip(self.detection_thresholds, self.detected / self.rois)
        return {
            "target_iou_mean": (self.iou_sum / self.rois).float(),
            "instance_separation": (self.separated / self.confmat[1:].sum()).float(),
            **{f"detection_{round(100 * threshold)}": rate.float() for threshold, rate in rates},
            "miou": iou.nanmean().float(),
            **{f"iou/{name}": value.float() for name, value in zip(CLASSES, iou)},
        }
