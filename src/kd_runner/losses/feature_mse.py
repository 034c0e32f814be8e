"""Squared distance of feature maps of one shape: a pruned student keeps its teacher's width."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_runner.losses.functional.masked import masked_mean


class FeatureMSE(nn.Module):
    """Mean over levels of the mean over valid locations and channels of (student - teacher)^2.

    A few channels of a large ViT are hundreds of times as wide as the rest, and grow from block to block: plain MSE
    sees little but them, and a weight that suits one block suits no other. Normalized, every error is counted in
    standard deviations of the teacher's channel. That is the share of the teacher's variance left unexplained: 0 for a
    copy, 1 for a student that knows no more than each channel's mean, whatever the net, block or width.

    Args:
        normalize: divide by the variance of the teacher's channel over the valid locations of the batch. Channels
            of nearly no variance count with a thousandth of the median one instead.
        channel_dim: 1 for maps (B, C, H, W); -1 for tokens (B, N, C) and token grids (B, H, W, C).
    """

    def __init__(self, normalize: bool = True, channel_dim: int = 1):
        super().__init__()
        if channel_dim not in (1, -1):
            raise ValueError(f"channel_dim must be 1 (B, C, H, W) or -1 (tokens), not {channel_dim}")
        self.normalize, self.channel_dim = normalize, channel_dim

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """student, teacher: one map a level, of equal shapes; mask bool, of the maps' shape without the channels.

        Returns a scalar: in variances of the teacher, or squared units of the maps. Masked locations get a gradient
        of exactly 0.

        Raises:
            ValueError: numbers of levels, or shapes, differ.
        """
        if len(student) != len(teacher):
            raise ValueError(f"{len(student)} student levels, {len(teacher)} teacher levels")
        levels = [self._level(at, *maps, mask) for at, maps in enumerate(zip(student, teacher))]
        return torch.stack(levels).mean()

    def _level(self, number: int, student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
        if student.shape != teacher.shape:
            raise ValueError(
                f"level {number}: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}; "
                "maps of unlike shape can be compared by losses.cosine_features.CosineFeatures"
            )
        student, teacher = (m.float().movedim(self.channel_dim, -1) for m in (student, teacher.detach()))
        error = (student - teacher).square()
        if self.normalize:
            error = error / _variance(teacher, mask)
        return masked_mean(error.mean(-1), mask)


def _variance(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Of each channel (C,), over the valid locations of maps (..., C); bounded below, see FeatureMSE."""
    rows = maps.flatten(0, -2)
    valid = rows.new_ones(len(rows), 1) if mask is None else mask.reshape(-1, 1).to(rows.dtype)
    count = valid.sum().clamp(min=1)
    mean = (rows * valid).sum(0) / count
    variance = ((rows - mean).square() * valid).sum(0) / count
    return torch.maximum(variance, 1e-3 * variance.median()).clamp(min=1e-12)
