"""Knowledge review: each level of the teacher is matched by the student's, fused from the deepest level on."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.maps import as_maps, check_channels, full_precision, hide, mask_on_grid, matched
from kd_runner.losses.functional.masked import masked_mean

_POOLED = (4, 2, 1)


class ReviewKD(nn.Module):
    """Hierarchical context loss between fused student maps and the teacher's, level by level.

    From the deepest level to the shallowest, with x the level's student map through a 1x1 convolution and batch norm,
    and y the fused map of the level below, enlarged to the size of x by its nearest pixels,

        z = x * g_0 + y * g_1,  (g_0, g_1) = sigmoid of a 1x1 convolution of (x, y);  z = x at the deepest level
        s = 3x3 convolution and batch norm of z, resized to the teacher's grid by its nearest pixels
        loss = sum over levels of sum_k w_k * MSE(pool_k(s), pool_k(teacher)) / sum_k w_k

    k runs over the full size (w = 1) and averages of 4 x 4, 2 x 2, 1 x 1 cells (w = 1/2, 1/4, 1/8), those that are not
    smaller than the map left out. The levels are summed, as in the authors' code, whose weights are 0.6 to 8. Sizes are
    rows and columns each (the authors' squares). Void locations count as 0 on the way in, and their errors do not
    count; an average is over the valid part of a cell. The authors' warm-up of the weight is no part of the loss.

    Args:
        width: channels of the fused maps; None: those of the student's deepest level, at most 512.

    Source:
        Chen et al., "Distilling Knowledge via Knowledge Review", CVPR 2021, section 3.3; mdistiller's ReviewKD.py.
    """

    def __init__(self, width: int | None = None):
        super().__init__()
        self.width = width
        self.inward, self.outward, self.gates = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()

    def build(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None) -> None:
        """Create the layers of each level, sized from example maps.

        Args:
            student: as for `forward`.
            teacher: as for `forward`.
            mask: as for `forward`.
        """
        self.inward, self.outward, self.gates = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        pairs = list(matched(student, teacher, resize=False))
        width = self.width or min(512, pairs[-1][0].shape[1])
        for number, (maps, target, _) in enumerate(pairs):
            channels = target.shape[1]
            reduce = nn.Conv2d(maps.shape[1], width, 1, bias=False)
            restore = nn.Conv2d(width, channels, 3, padding=1, bias=False)
            for layer in (reduce, restore):
                nn.init.kaiming_uniform_(layer.weight, a=1)
            self.inward.append(nn.Sequential(reduce, nn.BatchNorm2d(width)))
            self.outward.append(nn.Sequential(restore, nn.BatchNorm2d(channels)))
            deepest = number == len(pairs) - 1
            self.gates.append(nn.Identity() if deepest else nn.Conv2d(2 * width, 2, 1))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: maps (B, C, H, W), shallowest first.
            teacher: likewise.
            mask: (B, H, W) bool of any size, False where a location is ignored (its gradient is exactly 0).

        Returns:
            Scalar, in squared units of the teacher's features.

        Raises:
            ValueError: numbers of levels differ, or channels from those of `build`.
        """
        pairs = list(matched(student, teacher, mask, resize=False))
        if len(pairs) != len(self.inward):
            raise ValueError(f"{len(pairs)} levels, {len(self.inward)} when it was built")
        value: Tensor | None = None
        fused: Tensor | None = None
        for number in reversed(range(len(pairs))):
            maps, target, valid = pairs[number]
            x = self.inward[number](hide(maps, valid))
            if fused is not None:
                y = F.interpolate(fused, x.shape[2:], mode="nearest")
                gate = self.gates[number](torch.cat([x, y], 1)).sigmoid()
                x = x * gate[:, :1] + y * gate[:, 1:]
            fused = x if x.shape[2:] == target.shape[2:] else F.interpolate(x, target.shape[2:], mode="nearest")
            restored = full_precision(self.outward[number](fused))
            check_channels(restored, target)
            context = hierarchical_context(restored, as_maps(target), mask_on_grid(mask, target))
            value = context if value is None else value + context
        if value is None:
            raise ValueError("at least one level is needed")
        return value


def hierarchical_context(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Squared error of maps and of their averages over ever larger cells, weighted (see ReviewKD).

    Args:
        student: (B, C, H, W).
        teacher: likewise.
        mask: (B, H, W) bool, False where a location is ignored.

    Returns:
        Scalar.
    """
    difference = hide(student - teacher, mask)
    value, weight, total = _mean_square(difference, mask), 1.0, 1.0
    for cells in _POOLED:
        if cells >= min(difference.shape[2:]):
            continue
        pooled, filled = F.adaptive_avg_pool2d(difference, cells), None
        if mask is not None:
            part = F.adaptive_avg_pool2d(mask[:, None].to(pooled.dtype), cells)
            pooled, filled = pooled / part.clamp(min=1e-6), part[:, 0] > 0
        weight /= 2
        value = value + weight * _mean_square(pooled, filled)
        total += weight
    return value / total


def _mean_square(difference: Tensor, mask: Tensor | None) -> Tensor:
    return difference.square().mean() if mask is None else masked_mean(difference.square().mean(1), mask)
