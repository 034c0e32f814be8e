"""Similarity-preserving distillation: which samples of a batch resemble each other."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.maps import Features, hide, mask_on_grid, matched


class SimilarityPreserving(nn.Module):
    """Squared difference of the row-normalized similarity matrices of a batch.

        G(x) = x x^T, each row divided by its norm, x (B, C * H * W)
        loss = mean over levels of |G(student) - G(teacher)|^2 / B^2

    Nothing is projected or resized: nets may differ in channels and sizes. The authors' weight is 3000. Under DDP the
    batch is that of one process.

    Args:
        channel_dim: 1 for maps (B, C, H, W) and vectors (B, C); -1 for tokens (B, T, C) and token grids (B, H, W, C).

    Source:
        Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, equations 2 to 4; RepDistiller's
        SP.py.
    """

    def __init__(self, channel_dim: int = 1):
        super().__init__()
        self.channel_dim = channel_dim

    def forward(self, student: Features, teacher: Features, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: maps, tokens or vectors, one level or several.
            teacher: likewise.
            mask: (B, H, W) bool of any size, False where a location counts as 0 (its gradient is exactly 0).

        Returns:
            Scalar in 0..4 / B.

        Raises:
            ValueError: numbers of levels differ.
        """
        values = []
        for maps, target, valid in matched(student, teacher, mask, self.channel_dim, resize=False):
            own, other = _similarity(hide(maps, valid)), _similarity(hide(target, mask_on_grid(mask, target)))
            values.append(F.mse_loss(own, other))  # a mean over B^2 numbers
        return torch.stack(values).mean()


def _similarity(maps: Tensor) -> Tensor:
    """Row-normalized similarities (B, B)."""
    vectors = maps.flatten(1)
    return F.normalize(vectors @ vectors.T, dim=1)
