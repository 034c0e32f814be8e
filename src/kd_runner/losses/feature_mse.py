"""Squared distance of feature maps of equal shape, as a pruned student has them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_runner.losses.functional.masked import masked_mean


class FeatureMSE(nn.Module):
    """Mean squared error between student and teacher features, by default relative to the teacher's variance.

        loss = mean over levels of mean over valid locations and channels c of (student - teacher)^2 / var_c(teacher)

    A few channels of a large ViT have values hundreds of times larger than the others, and they grow from block to
    block: plain MSE is dominated by them, and a weight that suits one block suits no other. Normalized, the value is
    the fraction of the teacher's variance left unexplained: 0 for a copy, 1 for a student that knows only each
    channel's mean, whatever the net, block or width.

    Args:
        normalize: divide by the variance of the teacher's channel over the valid locations of the batch, bounded below
            by a thousandth of the median variance.
        channel_dim: 1 for maps (B, C, H, W); -1 for tokens (B, N, C) and token grids (B, H, W, C).

    Raises:
        ValueError: channel_dim is neither 1 nor -1.

    Example:
        >>> import torch
        >>> maps = [torch.arange(8.0).reshape(1, 2, 2, 2)]
        >>> FeatureMSE(normalize=False)([maps[0] + 3], maps).item()
        9.0
    """

    def __init__(self, normalize: bool = True, channel_dim: int = 1):
        super().__init__()
        if channel_dim not in (1, -1):
            raise ValueError(f"channel_dim must be 1 (B, C, H, W) or -1 (tokens), not {channel_dim}")
        self.normalize, self.channel_dim = normalize, channel_dim

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: one map per level, of equal shapes.
            teacher: one map per level, of equal shapes.
            mask: bool, of the maps' shape without channels; False where a location is ignored (gradient exactly 0).

        Returns:
            Scalar: fraction of the teacher's variance, or squared units of the maps without `normalize`.

        Raises:
            ValueError: numbers of levels, or shapes, differ.
        """
        if len(student) != len(teacher):
            raise ValueError(f"{len(student)} student levels, {len(teacher)} teacher levels")
        levels = [self._level(number, *maps, mask) for number, maps in enumerate(zip(student, teacher))]
        return torch.stack(levels).mean()

    def _level(self, number: int, student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
        if student.shape != teacher.shape:
            raise ValueError(
                f"level {number}: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}; "
                "maps of different shapes can be compared by losses.cosine_features.CosineFeatures"
            )
        student, teacher = (m.float().movedim(self.channel_dim, -1) for m in (student, teacher.detach()))
        error = (student - teacher).square()
        if self.normalize:
            error = error / _variance(teacher, mask)
        return masked_mean(error.mean(-1), mask)


def _variance(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Variance (C,) of each channel over the valid locations of maps (..., C); bounded below, see FeatureMSE."""
    rows = maps.flatten(0, -2)
    valid = rows.new_ones(len(rows), 1) if mask is None else mask.reshape(-1, 1).to(rows.dtype)
    count = valid.sum().clamp(min=1)
    mean = (rows * valid).sum(0) / count
    variance = ((rows - mean).square() * valid).sum(0) / count
    return torch.maximum(variance, 1e-3 * variance.median()).clamp(min=1e-12)
