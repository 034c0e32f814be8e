"""Intersection over union of a segmentation, as in Pascal VOC."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from kd_runner.metrics.confusion import confusion_matrix, constant_levels, iou_per_class


class SegmentationIoU(Metric):
    """IoU per class and their mean, from one confusion matrix over all valid pixels of the set.

    A class that is neither in the labels nor predicted is nan and left out of the mean; one that is predicted but never
    true has IoU 0. (torchmetrics' own `average="none"` gives 0 for both, and its counting is 20 times slower under
    deterministic algorithms.)

    Args:
        num_classes: number of classes, background included.
        class_names: names for the report; None for numbers.
        ignore_index: label of pixels that are ignored.

    Attributes:
        constant_levels: what always predicting the most frequent class would have; set by `compute`.

    Raises:
        ValueError: as many names as classes are needed.

    Source:
        Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", IJCV 2015, section 4.3.

    Example:
        >>> metric = SegmentationIoU(num_classes=2)
        >>> metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]))
        >>> metric.compute()["miou"]
        tensor(0.2500)
    """

    higher_is_better = True
    full_state_update = False
    confmat: Tensor

    def __init__(self, num_classes: int, class_names: Sequence[str] | None = None, ignore_index: int = 255):
        super().__init__()
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.class_names = list(class_names or map(str, range(num_classes)))
        if len(self.class_names) != num_classes:
            raise ValueError(f"class_names has {len(self.class_names)} names for {num_classes} classes")
        self.constant_levels: dict[str, float] = {}
        self.add_state("confmat", torch.zeros(num_classes, num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            preds: scores (B, C, H, W) or labels (B, H, W), at label resolution.
            target: labels (B, H, W).
        """
        if preds.ndim == target.ndim + 1:
            preds = preds.argmax(1)
        valid = target != self.ignore_index
        self.confmat += confusion_matrix(preds[valid], target[valid], self.num_classes)

    def compute(self) -> dict[str, Tensor]:
        """Compute the metric of all batches.

        Returns:
            `miou`, `pixel_accuracy` and `iou/<class>`, each in 0..1.
        """
        counts = self.confmat.double()
        iou = iou_per_class(self.confmat)
        self.constant_levels = constant_levels(self.confmat)
        return {
            "miou": iou.nanmean().float(),
            "pixel_accuracy": (counts.trace() / counts.sum()).float(),
            **{f"iou/{name}": value.float() for name, value in zip(self.class_names, iou)},
        }
