"""Dice loss of the target."""

from torch import Tensor, nn

from kd_runner.geometry.rois import VOID, labels


class TargetDice(nn.Module):
    """Dice loss of the target's probability p against the true mask t, per ROI, then averaged.

        loss = mean over ROIs of 1 - (2 sum p t + smooth) / (sum p + sum t + smooth)

    Args:
        smooth: keeps ROIs without any target finite.

    Source:
        Milletari et al., "V-Net", 3DV 2016, with plain instead of squared sums in the denominator.
    """

    def __init__(self, smooth: float = 1e-6):
        super().__init__()
        self.smooth = smooth

    def forward(self, logits: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: (R, 3, h, w) of all B * N ROIs or of those that count.
            target: labels (B, N, h, w): 0 background, 1 target, 2 non-target, 255 void.
            roi_mask: (B, N) bool, False for padding.

        Returns:
            Scalar in 0..1; 0 if no ROI has labels.
        """
        logits, target = labels(logits, target, roi_mask)
        known = target != VOID
        probability = (logits.softmax(1)[:, 1] * known).flatten(1)
        truth = (target == 1).float().flatten(1)
        overlap = (probability * truth).sum(1)
        dice = (2 * overlap + self.smooth) / (probability.sum(1) + truth.sum(1) + self.smooth)
        return (1 - dice).sum() / max(1, len(dice))
