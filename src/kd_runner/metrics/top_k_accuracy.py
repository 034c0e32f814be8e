"""Accuracy of a classification."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class TopKAccuracy(Metric):
    """Fraction of samples whose class is among the k with the highest scores.

    Args:
        num_classes: number of classes.
        ks: values of k.

    Attributes:
        constant_levels: what always predicting the most frequent classes would have; set by `compute`.
    """

    higher_is_better = True
    full_state_update = False
    right: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, ks: Sequence[int] = (1, 5)):
        super().__init__()
        self.ks = list(ks)
        self.constant_levels: dict[str, float] = {}
        self.add_state("right", torch.zeros(len(self.ks), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            preds: scores `(B, C)`.
            target: labels `(B,)`.
        """
        ranked = preds.topk(min(max(self.ks), preds.shape[1]), 1).indices == target[:, None]
        self.right += torch.stack([ranked[:, :k].sum() for k in self.ks])
        self.counts += torch.bincount(target, minlength=len(self.counts))

    def compute(self) -> dict[str, Tensor]:
        """Compute the accuracies of all batches.

        Returns:
            `top<k>` for every k, in 0..1.
        """
        fractions = self.counts.double().sort(descending=True).values / self.counts.sum()
        self.constant_levels = {f"top{k}": float(fractions[:k].sum()) for k in self.ks}
        return {f"top{k}": (right / self.counts.sum()).float() for k, right in zip(self.ks, self.right)}
