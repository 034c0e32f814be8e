"""Overlap with the target."""

from torch import Tensor, nn

from kd_runner.losses.functional.rois import VOID, labels


class TargetDice(nn.Module):
    """1 - Dice of the target's probability, ROI by ROI, then the mean (Milletari et al. 2016, V-Net, with plain sums
    below the line).

    Args:
        smooth: added above and below, for ROIs without any target.
    """

    def __init__(self, smooth: float = 1e-6):
        super().__init__()
        self.smooth = smooth

    def forward(self, logits: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """logits (R, 3, h, w), class 1 the target; target (B, N, h, w); roi_mask (B, N).

        Returns a scalar in 0..1; 0 where no ROI has labels.
        """
        logits, target = labels(logits, target, roi_mask)
        known = target != VOID
        probability = (logits.softmax(1)[:, 1] * known).flatten(1)
        truth = (target == 1).float().flatten(1)
        overlap = (probability * truth).sum(1)
        dice = (2 * overlap + self.smooth) / (probability.sum(1) + truth.sum(1) + self.smooth)
        return (1 - dice).sum() / max(1, len(dice))
