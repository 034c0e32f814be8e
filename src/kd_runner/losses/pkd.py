"""Distillation of feature maps up to scale and offset of each channel."""

import torch
from torch import Tensor, nn

from kd_runner.losses.functional.maps import Features, check_channels, full_precision, matched, rows
from kd_runner.losses.functional.projections import projections

_EPS = 1e-6


class PKD(nn.Module):
    """Mean squared error between channel-standardized maps, which is one minus the Pearson correlation.

        loss = mean over levels of 1/2 * mean over valid locations and channels of (Z(student) - Z(teacher))^2
        Z(x) = (x - mean of the channel) / (std of the channel + 1e-6)

    mean and std (unbiased) of a channel are taken over all valid locations of the batch. Where the numbers of channels
    differ, a 1x1 convolution without bias maps the student's to the teacher's. The teacher's map is resized bilinearly
    to the student's grid (mmrazor resizes the student's, and only where the heights differ), and the levels are
    averaged (mmrazor sums them). mmrazor's weights are 6 to 10 for four levels of a pyramid summed.

    Args:
        channel_dim: 1 for maps (B, C, H, W) and vectors (B, C); -1 for tokens (B, T, C) and token grids (B, H, W, C).

    Source:
        Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient",
        NeurIPS 2022, equations 3 and 4; mmrazor/models/losses/pkd_loss.py.
    """

    def __init__(self, channel_dim: int = 1):
        super().__init__()
        self.channel_dim = channel_dim
        self.projections = nn.ModuleList()

    def build(self, student: Features, teacher: Features, mask: Tensor | None = None) -> None:
        """Create a projection where the numbers of channels differ.

        Args:
            student: as for `forward`.
            teacher: as for `forward`.
            mask: as for `forward`.
        """
        self.projections = projections(student, teacher, self.channel_dim, always=False)

    def forward(self, student: Features, teacher: Features, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: maps, tokens or vectors, one level or several.
            teacher: likewise.
            mask: (B, H, W) bool of any size, False where a location is ignored (its gradient is exactly 0).

        Returns:
            Scalar, about 1 for unrelated maps; 0 for a level with fewer than two valid locations.

        Raises:
            ValueError: numbers of levels or channels differ.
        """
        values = []
        for number, (maps, target, valid) in enumerate(matched(student, teacher, mask, self.channel_dim)):
            if self.projections:
                maps = full_precision(self.projections[number](maps))
            check_channels(maps, target)
            own, other = rows(maps, valid), rows(target, valid)
            if len(own) < 2:
                values.append(0.0 * own.sum())
            else:
                values.append((_standardized(own) - _standardized(other)).square().mean() / 2)
        return torch.stack(values).mean()


def _standardized(vectors: Tensor) -> Tensor:
    return (vectors - vectors.mean(0)) / (vectors.std(0) + _EPS)
