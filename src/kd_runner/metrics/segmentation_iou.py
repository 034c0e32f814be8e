"""Intersection over union of a segmentation, the VOC way."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


class SegmentationIoU(MulticlassConfusionMatrix):
    """One confusion matrix over all valid pixels of the set; IoU per class, and their mean.

    A class that neither the labels nor the predictions hold is nan and left out of the mean; one that is predicted but
    not there counts 0 (Everingham et al. 2015, "The Pascal Visual Object Classes Challenge: A Retrospective",
    section 4.3). torchmetrics' own `average="none"` gives 0 for both.

    Args:
        num_classes: classes, background included.
        class_names: names for the report; numbers where None.
        ignore_index: label that does not count.
    """

    higher_is_better = True
    full_state_update = False

    def __init__(self, num_classes: int, class_names: Sequence[str] | None = None, ignore_index: int = 255):
        super().__init__(num_classes=num_classes, ignore_index=ignore_index, validate_args=False)
        self.class_names = list(class_names or map(str, range(num_classes)))
        if len(self.class_names) != num_classes:
            raise ValueError(f"data.class_names has {len(self.class_names)} names for {num_classes} classes")

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """`miou`, `pixel_accuracy` and `iou/<class>`, each 0..1."""
        counts = self.confmat.double()
        hits = counts.diag()
        union = counts.sum(0) + counts.sum(1) - hits
        iou = torch.where(union > 0, hits / union, torch.nan)
        return {
            "miou": iou.nanmean().float(),
            "pixel_accuracy": (hits.sum() / counts.sum()).float(),
            **{f"iou/{name}": value.float() for name, value in zip(self.class_names, iou)},
        }
