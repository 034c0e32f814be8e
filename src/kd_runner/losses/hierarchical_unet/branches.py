"""Cross entropy of the two branches: background/foreground, and target/non-target within the foreground."""

import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.geometry.rois import VOID, labels
from kd_runner.losses.functional.class_balance import ClassBalance


class BackgroundForegroundCE(nn.Module):
    """Class-balanced cross entropy of background and foreground (any person) over the pixels of all ROIs.

    Args:
        foreground_factor: additional weight of foreground pixels, on top of the class balance.
    """

    def __init__(self, foreground_factor: float = 1.2):
        super().__init__()
        self.balance = ClassBalance(2, factors=(1.0, foreground_factor))

    def forward(self, logits: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: (R, 2, h, w) of all B * N ROIs or of those that count.
            target: labels (B, N, h, w): 0 background, 1 target, 2 non-target, 255 void.
            roi_mask: (B, N) bool, False for padding.

        Returns:
            Scalar in nats; 0 if no pixel counts.
        """
        logits, target = labels(logits, target, roi_mask)
        foreground = (target > 0).long().masked_fill(target == VOID, VOID)
        return _balanced(logits, foreground, self.balance)


class TargetNonTargetCE(nn.Module):
    """Class-balanced cross entropy of target and non-target over true foreground pixels; others get no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.balance = ClassBalance(2)

    def forward(self, logits: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: (R, 2, h, w), target and non-target, of all B * N ROIs or of those that count.
            target: labels (B, N, h, w): 0 background, 1 target, 2 non-target, 255 void.
            roi_mask: (B, N) bool, False for padding.

        Returns:
            Scalar in nats; 0 if no pixel counts.
        """
        logits, target = labels(logits, target, roi_mask)
        return _balanced(logits, (target - 1).masked_fill((target == 0) | (target == VOID), VOID), self.balance)


def _balanced(logits: Tensor, target: Tensor, balance: ClassBalance) -> Tensor:
    weight = balance(target, VOID)
    total = F.cross_entropy(logits, target, weight, ignore_index=VOID, reduction="sum")
    norm = sum((weight[c] * (target == c).sum() for c in range(len(weight))), start=weight.new_zeros(()))
    return total / norm.clamp(min=1e-6)
