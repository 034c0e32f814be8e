"""Cross entropy of the two branches: background or foreground, and within the foreground target or non-target."""

import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.class_balance import ClassBalance
from kd_runner.losses.functional.rois import VOID, labels


class BackgroundForegroundCE(nn.Module):
    """Weighted mean over the pixels of all ROIs; a foreground is whoever's person.

    Args:
        foreground_factor: how much more a foreground pixel counts, beside the balance of the classes.
    """

    def __init__(self, foreground_factor: float = 1.2):
        super().__init__()
        self.balance = ClassBalance(2, factors=(1.0, foreground_factor))

    def forward(self, logits: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """logits (R, 2, h, w); target (B, N, h, w) of 0 background, 1 target, 2 non-target, 255 void; roi_mask (B, N).

        Returns a scalar in nats; 0 where no pixel counts.
        """
        logits, target = labels(logits, target, roi_mask)
        foreground = (target > 0).long().masked_fill(target == VOID, VOID)
        return _balanced(logits, foreground, self.balance)


class TargetNonTargetCE(nn.Module):
    """Weighted mean over the pixels that are foreground in truth; the others get a gradient of exactly 0."""

    def __init__(self) -> None:
        super().__init__()
        self.balance = ClassBalance(2)

    def forward(self, logits: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """As `BackgroundForegroundCE`, the two channels being target and non-target."""
        logits, target = labels(logits, target, roi_mask)
        return _balanced(logits, (target - 1).masked_fill((target == 0) | (target == VOID), VOID), self.balance)


def _balanced(logits: Tensor, target: Tensor, balance: ClassBalance) -> Tensor:
    weight = balance(target, VOID)
    total = F.cross_entropy(logits, target, weight, ignore_index=VOID, reduction="sum")
    share = sum((weight[c] * (target == c).sum() for c in range(len(weight))), start=weight.new_zeros(()))
    return total / share.clamp(min=1e-6)
