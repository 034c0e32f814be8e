"""Cosine distance of feature maps, level by level, through a trained projection on the student's side."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.masked import masked_mean


class CosineFeatures(nn.Module):
    """Cosine distance between projected student features and teacher features.

        loss = mean over levels of mean over valid locations of 1 - cos(P student, teacher)

    P is a 1x1 convolution without bias per level, from student to teacher channels, trained with the student. (On the
    teacher's side it could shrink the target to a constant; on the student's side it cannot.) The teacher's map is
    resized bilinearly to the student's grid.

    Args:
        channel_dim: 1 for maps (B, C, H, W); -1 for token grids (B, H, W, C).

    Raises:
        ValueError: channel_dim is neither 1 nor -1.

    Source:
        The projection follows Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015.

    Example:
        >>> import torch
        >>> loss = CosineFeatures()
        >>> student, teacher = [torch.randn(2, 4, 8, 8)], [torch.randn(2, 16, 8, 8)]
        >>> loss.build(student, teacher)  # one projection from 4 to 16 channels
        >>> 0 <= loss(student, teacher).item() <= 2
        True
    """

    def __init__(self, channel_dim: int = 1) -> None:
        super().__init__()
        if channel_dim not in (1, -1):
            raise ValueError(f"channel_dim must be 1 (B, C, H, W) or -1 (B, H, W, C), not {channel_dim}")
        self.channel_dim = channel_dim
        self.projections = nn.ModuleList()

    def build(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None) -> None:
        """Create one projection per level, sized from example maps.

        Args:
            student: as for `forward`.
            teacher: as for `forward`.
            mask: not used.

        Raises:
            ValueError: numbers of levels differ, or a feature has not four dimensions.
        """
        if len(student) != len(teacher):
            raise ValueError(f"{len(student)} student levels, {len(teacher)} teacher levels")
        self.projections = nn.ModuleList()
        for level in zip(student, teacher):
            if any(features.ndim != 4 for features in level):
                shapes = " and ".join(str(tuple(features.shape)) for features in level)
                raise ValueError(f"maps (B, C, H, W), or (B, H, W, C) with channel_dim=-1, needed, not {shapes}")
            in_channels, out_channels = (features.shape[self.channel_dim] for features in level)
            self.projections.append(nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: one map per level, (B, C, H, W) or (B, H, W, C), see `channel_dim`; every level has its
                own size.
            teacher: as `student`.
            mask: (B, H, W) bool of any size, True where a location counts (nearest pixel).

        Returns:
            Scalar in 0..2.

        Raises:
            ValueError: a map has other channels than in `build`; numbers of levels differ.
        """
        levels = [
            self._level(project, student_map, teacher_map, mask)
            for project, student_map, teacher_map in zip(self.projections, student, teacher, strict=True)
        ]
        return sum(levels[1:], levels[0]) / len(levels)

    def _level(self, project: nn.Module, student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
        student, teacher = (maps.movedim(self.channel_dim, 1) for maps in (student, teacher.detach()))
        student = project(student)
        if teacher.shape[1] != student.shape[1]:
            raise ValueError(f"teacher map of {teacher.shape[1]} channels, {student.shape[1]} when it was built")
        size = student.shape[-2:]
        if teacher.shape[-2:] != size:
            teacher = F.interpolate(teacher, size, mode="bilinear", align_corners=False)
        if mask is not None:
            mask = F.interpolate(mask[:, None].float(), size, mode="nearest")[:, 0].bool()
        # With torch's own eps of 1e-8 a zero vector gets a gradient of 1e8.
        return masked_mean(1 - F.cosine_similarity(student.float(), teacher.float(), dim=1, eps=1e-3), mask)
