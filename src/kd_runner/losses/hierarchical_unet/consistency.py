"""The first branch and the final classes must agree on what is foreground."""

import torch.nn.functional as F
from torch import Tensor, nn


class ForegroundConsistency(nn.Module):
    """Mean squared difference of p(foreground) by branch A and p(target) + p(non-target) by the final classes."""

    def forward(self, bg_fg: Tensor, logits: Tensor) -> Tensor:
        """bg_fg (R, 2, h, w), logits (R, 3, h, w), of the same ROIs. Returns a scalar in 0..1."""
        return F.mse_loss(bg_fg.float().softmax(1)[:, 1], logits.float().softmax(1)[:, 1:].sum(1))
