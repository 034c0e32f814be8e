"""Consistency of the background/foreground branch with the final classes."""

import torch.nn.functional as F
from torch import Tensor, nn


class ForegroundConsistency(nn.Module):
    """Mean squared difference of p(foreground) of branch A and p(target) + p(non-target) of the final classes."""

    def forward(self, bg_fg: Tensor, logits: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            bg_fg: branch A's logits (R, 2, h, w).
            logits: final logits (R, 3, h, w) of the same ROIs.

        Returns:
            Scalar in 0..1.
        """
        return F.mse_loss(bg_fg.float().softmax(1)[:, 1], logits.float().softmax(1)[:, 1:].sum(1))
