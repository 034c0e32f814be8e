"""Distillation from several teachers at a time, each normalized so that none outweighs the others."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_runner.losses.functional.maps import full_precision, matched, rows
from kd_runner.losses.functional.phi_s import PhiS
from kd_runner.losses.functional.projections import projections


class MultiTeacher(nn.Module):
    """Mean squared error between projections of the student's features and the normalized features of each teacher.

        loss = mean over teachers k of mean over valid locations and channels of (P_k student - PhiS_k(teacher_k))^2

    P_k is a 1x1 convolution with bias, trained with the student. `PhiS` centers a teacher's features, rotates them so
    that all channels have the same variance, and scales them to variance 1: a teacher of large features does not
    outweigh the others, as it would in a plain average. A student that knows the mean alone has a value of 1, whatever
    the teachers. Each teacher's map is resized bilinearly to the student's grid.

    Args:
        steps: training batches from which a teacher's statistics are taken.
        rotate: False for a number of channels without a Hadamard matrix: centered and scaled only.
        channel_dim: 1 for maps (B, C, H, W) and vectors (B, C); -1 for tokens (B, T, C) and token grids (B, H, W, C).

    Source:
        Ranzinger et al., "PHI-S: Distribution Balancing for Label-Free Multi-Teacher Distillation", 2024; AM-RADIO,
        CVPR 2024.
    """

    def __init__(self, steps: int = 100, rotate: bool = True, channel_dim: int = 1):
        super().__init__()
        self.steps, self.rotate, self.channel_dim = steps, rotate, channel_dim
        self.projections, self.normalizers = nn.ModuleList(), nn.ModuleList()

    def build(self, student: Tensor, teachers: Sequence[Tensor], mask: Tensor | None = None) -> None:
        """Create projection and normalization of each teacher, sized from example features.

        Args:
            student: as for `forward`.
            teachers: as for `forward`.
            mask: as for `forward`.
        """
        self.projections = projections([student] * len(teachers), teachers, self.channel_dim, bias=True)
        self.normalizers = nn.ModuleList(
            PhiS(teacher.shape[self.channel_dim], self.steps, self.rotate) for teacher in teachers
        )

    def forward(self, student: Tensor, teachers: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Compute the loss and, in the first training steps, the teachers' statistics.

        Args:
            student: maps, tokens or vectors.
            teachers: of each teacher likewise.
            mask: (B, H, W) bool of any size, False where a location is ignored (its gradient is exactly 0).

        Returns:
            Scalar, in variances of the teachers' features; 0 if no location counts.

        Raises:
            ValueError: another number of teachers than in `build`.
        """
        values = []
        pairs = matched([student] * len(teachers), teachers, mask, self.channel_dim)
        for project, normalize, (maps, target, valid) in zip(self.projections, self.normalizers, pairs, strict=True):
            normalize.train(self.training and torch.is_grad_enabled())
            known = normalize(rows(target, valid))
            own = rows(full_precision(project(maps)), valid)
            values.append((own - known).square().sum() / max(1, own.numel()))
        return torch.stack(values).mean()
