"""Cross entropy of the three ROI classes with a higher weight at class boundaries."""

import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.geometry.rois import VOID, labels
from kd_runner.losses.functional.edges import boundary


class BoundaryAwareCE(nn.Module):
    """Mean over all labeled pixels of cross entropy, times `boundary_weight` where two classes meet.

    Args:
        boundary_weight: weight of a boundary pixel; 1 gives the plain cross entropy.
    """

    def __init__(self, boundary_weight: float = 2.0):
        super().__init__()
        self.boundary_weight = boundary_weight

    def forward(self, logits: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: (R, 3, h, w) of all B * N ROIs or of those that count.
            target: labels (B, N, h, w): 0 background, 1 target, 2 non-target, 255 void.
            roi_mask: (B, N) bool, False for padding.

        Returns:
            Scalar in nats.
        """
        logits, target = labels(logits, target, roi_mask)
        value = F.cross_entropy(logits, target, ignore_index=VOID, reduction="none")
        if self.boundary_weight != 1:
            one_hot = (target[:, None] == target.new_tensor(range(logits.shape[1]))[:, None, None]).float()
            edge = boundary(one_hot, radius=1).any(1)
            value = value * (1 + (self.boundary_weight - 1) * edge)
        return value.sum() / (target != VOID).sum().clamp(min=1)
