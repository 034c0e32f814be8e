"""Cross entropy of the three classes, pixels at a boundary first."""

import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.edges import boundary
from kd_runner.losses.functional.rois import VOID, labels


class BoundaryAwareCE(nn.Module):
    """Mean over all pixels of cross entropy, times `boundary_weight` where two classes meet.

    Args:
        boundary_weight: 1 is the plain cross entropy.
    """

    def __init__(self, boundary_weight: float = 2.0):
        super().__init__()
        self.boundary_weight = boundary_weight

    def forward(self, logits: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """logits (R, 3, h, w); target (B, N, h, w), 255 for void; roi_mask (B, N). Returns a scalar in nats."""
        logits, target = labels(logits, target, roi_mask)
        value = F.cross_entropy(logits, target, ignore_index=VOID, reduction="none")
        if self.boundary_weight != 1:
            one_hot = (target[:, None] == target.new_tensor(range(logits.shape[1]))[:, None, None]).float()
            at_edge = boundary(one_hot, radius=1).any(1)
            value = value * (1 + (self.boundary_weight - 1) * at_edge)
        return value.sum() / (target != VOID).sum().clamp(min=1)
