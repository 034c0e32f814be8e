"""Cosine distance of feature maps, level by level, through a trained projection on the student's side."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.masked import masked_mean


class CosineFeatures(nn.Module):
    """Mean over levels of the mean over valid locations of 1 - cos(projected student, teacher), along the channels.

    The projection (1x1 convolution without bias, one per level, in the manner of FitNets: Romero et al. 2015) maps
    student to teacher channels. On the teacher's side it could shrink the target to a constant; on the student's it
    cannot. The teacher's map is resized bilinearly to the student's grid.
    """

    def __init__(self) -> None:
        super().__init__()
        self.projections = nn.ModuleList()

    def build(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None) -> None:
        """Make one projection a level from example maps.

        Raises:
            ValueError: numbers of levels differ, or a feature is no map (B, C, H, W).
        """
        if len(student) != len(teacher):
            raise ValueError(f"{len(student)} student levels, {len(teacher)} teacher levels")
        self.projections = nn.ModuleList()
        for ours, theirs in zip(student, teacher):
            if ours.ndim != 4 or theirs.ndim != 4:
                raise ValueError(f"maps (B, C, H, W) needed, not {tuple(ours.shape)} and {tuple(theirs.shape)}")
            self.projections.append(nn.Conv2d(ours.shape[1], theirs.shape[1], 1, bias=False))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """student, teacher: a map (B, C, H, W) per level, each level of its own size; mask (B, H, W) bool.

        Returns a scalar in 0..2. A location counts where the nearest mask pixel does.
        """
        levels = [
            self._level(project(ours), theirs, mask)
            for project, ours, theirs in zip(self.projections, student, teacher, strict=True)
        ]
        return sum(levels[1:], levels[0]) / len(levels)

    @staticmethod
    def _level(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
        size = student.shape[-2:]
        teacher = teacher.detach()
        if teacher.shape[-2:] != size:
            teacher = F.interpolate(teacher, size, mode="bilinear", align_corners=False)
        if mask is not None:
            mask = F.interpolate(mask[:, None].float(), size, mode="nearest")[:, 0].bool()
        # A vector shorter than eps counts as short: with torch's own 1e-8 a zero one gets a gradient of 1e8.
        return masked_mean(1 - F.cosine_similarity(student.float(), teacher.float(), dim=1, eps=1e-3), mask)
