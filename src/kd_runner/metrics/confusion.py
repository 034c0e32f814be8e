"""Confusion matrix of a segmentation, and the IoU computed from it."""

import torch
from torch import Tensor


def confusion_matrix(preds: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Counts of label pairs.

    Args:
        preds: predicted labels in 0..num_classes-1, any shape.
        target: true labels in the same range and shape.
        num_classes: number of classes C.

    Returns:
        (C, C) int64, row = true class, column = predicted class.
    """
    pairs = (target * num_classes + preds).flatten()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def iou_per_class(confmat: Tensor) -> Tensor:
    """Intersection over union of every class, nan for a class that is neither in the labels nor predicted.

    Args:
        confmat: (C, C) counts, see `confusion_matrix`.

    Returns:
        (C,) float64 in 0..1.
    """
    counts = confmat.double()
    intersection = counts.diag()
    union = counts.sum(0) + counts.sum(1) - intersection
    return torch.where(union > 0, intersection / union, torch.nan)


def constant_levels(confmat: Tensor) -> dict[str, float]:
    """What always predicting the most frequent class would have: its IoU is its share of the pixels, others have 0.

    Args:
        confmat: (C, C) counts of any prediction, see `confusion_matrix`.

    Returns:
        `miou` and `pixel_accuracy`.
    """
    counts = confmat.double().sum(1)
    largest = float(counts.max() / counts.sum())
    return {"miou": largest / max(1, int((counts > 0).sum())), "pixel_accuracy": largest}
