"""Variational information distillation: the student's features predict the teacher's, with a variance per channel."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.maps import Features, check_channels, full_precision, matched
from kd_runner.losses.functional.masked import masked_mean

_EPS = 1e-5


class VID(nn.Module):
    """Negative log-likelihood of the teacher's map under a Gaussian around a regression of the student's.

        loss = mean over levels of mean over valid locations and channels c of
               1/2 * ((mu_c(student) - teacher_c)^2 / var_c + log var_c),  var_c = log(1 + exp(a_c)) + 1e-5

    mu is three 1x1 convolutions without bias with ReLU between them, as wide as the teacher, and a_c a learned number
    per channel; both are trained with the student. (mdistiller keeps the a_c in a plain list: they never move there.)
    The constant of the likelihood is left out, so the value may be negative. The teacher's map is resized bilinearly to
    the student's grid; RepDistiller pools to squares. Its weight is 1.

    Args:
        initial_variance: var_c before training.
        channel_dim: 1 for maps (B, C, H, W) and vectors (B, C); -1 for tokens (B, T, C) and token grids (B, H, W, C).

    Source:
        Ahn et al., "Variational Information Distillation for Knowledge Transfer", CVPR 2019, equations 4 and 6;
        RepDistiller's VID.py.
    """

    def __init__(self, initial_variance: float = 5.0, channel_dim: int = 1):
        super().__init__()
        if initial_variance <= _EPS:
            raise ValueError(f"initial_variance must be above {_EPS}, not {initial_variance}")
        self.initial_variance, self.channel_dim = initial_variance, channel_dim
        self.means, self.variances = nn.ModuleList(), nn.ParameterList()

    def build(self, student: Features, teacher: Features, mask: Tensor | None = None) -> None:
        """Create regression and variances of each level, sized from example features.

        Args:
            student: as for `forward`.
            teacher: as for `forward`.
            mask: as for `forward`.
        """
        self.means, self.variances = nn.ModuleList(), nn.ParameterList()
        start = math.log(math.expm1(self.initial_variance - _EPS))
        for maps, target, _ in matched(student, teacher, channel_dim=self.channel_dim):
            width = target.shape[1]
            first, second, third = (nn.Conv2d(n, width, 1, bias=False) for n in (maps.shape[1], width, width))
            self.means.append(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third))
            self.variances.append(nn.Parameter(torch.full((width,), start)))

    def forward(self, student: Features, teacher: Features, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: maps, tokens or vectors, one level or several.
            teacher: likewise.
            mask: (B, H, W) bool of any size, False where a location is ignored (its gradient is exactly 0).

        Returns:
            Scalar in nats, up to a constant; 0 if no location counts.

        Raises:
            ValueError: numbers of levels differ, or channels from those of `build`.
        """
        values = []
        for predict, raw, (maps, target, valid) in zip(
            self.means, self.variances, matched(student, teacher, mask, self.channel_dim), strict=True
        ):
            mean = full_precision(predict(maps))
            check_channels(mean, target)
            variance = (F.softplus(raw) + _EPS)[:, None, None]
            likelihood = ((mean - target).square() / variance + variance.log()) / 2
            values.append(likelihood.mean() if valid is None else masked_mean(likelihood.mean(1), valid))
        return torch.stack(values).mean()
