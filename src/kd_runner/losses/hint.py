"""Hints: the student predicts the teacher's feature maps."""

import torch
from torch import Tensor, nn

from kd_runner.losses.functional.maps import Features, check_channels, full_precision, matched
from kd_runner.losses.functional.masked import masked_mean
from kd_runner.losses.functional.projections import projections


class Hint(nn.Module):
    """Mean squared error between the student's map, through a trained regressor, and the teacher's.

        loss = mean over levels of mean over valid locations and channels of (R(student) - teacher)^2

    R is a 1x1 convolution with bias per level, trained with the student. The mean stands for half of the paper's sum,
    as in RepDistiller and mdistiller, whose weight is 100; their regressor ends in batch norm and ReLU, which cannot
    reach negative features. The teacher's map is resized bilinearly to the student's grid.

    Args:
        channel_dim: 1 for maps (B, C, H, W) and vectors (B, C); -1 for tokens (B, T, C) and token grids (B, H, W, C).

    Source:
        Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3; RepDistiller's FitNet.py.
    """

    def __init__(self, channel_dim: int = 1):
        super().__init__()
        self.channel_dim = channel_dim
        self.regressors = nn.ModuleList()

    def build(self, student: Features, teacher: Features, mask: Tensor | None = None) -> None:
        """Create one regressor per level, sized from example features.

        Args:
            student: as for `forward`.
            teacher: as for `forward`.
            mask: as for `forward`.
        """
        self.regressors = projections(student, teacher, self.channel_dim, bias=True)

    def forward(self, student: Features, teacher: Features, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: maps, tokens or vectors, one level or several.
            teacher: likewise.
            mask: (B, H, W) bool of any size, False where a location is ignored (its gradient is exactly 0).

        Returns:
            Scalar, in squared units of the teacher's features; 0 if no location counts.

        Raises:
            ValueError: numbers of levels differ, or channels from those of `build`.
        """
        values = []
        for regress, (maps, target, valid) in zip(
            self.regressors, matched(student, teacher, mask, self.channel_dim), strict=True
        ):
            maps = full_precision(regress(maps))
            check_channels(maps, target)
            error = (maps - target).square()
            values.append(error.mean() if valid is None else masked_mean(error.mean(1), valid))
        return torch.stack(values).mean()
