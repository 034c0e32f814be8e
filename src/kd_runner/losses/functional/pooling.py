"""Feature vectors from feature maps."""

from collections.abc import Sequence

import torch
from torch import Tensor


def levels(features: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """A list of maps, also for a single one.

    Args:
        features: a map, or several.

    Returns:
        The maps.
    """
    return [features] if isinstance(features, Tensor) else list(features)


def global_average(features: Tensor | Sequence[Tensor]) -> Tensor:
    """Average maps over H and W and concatenate the levels.

    Args:
        features: maps (B, C, H, W) or vectors (B, C); one or several levels.

    Returns:
        (B, sum of C).

    Raises:
        ValueError: a tensor that is neither.
    """
    for level in levels(features):
        if level.ndim not in (2, 4):
            raise ValueError(f"maps (B, C, H, W) or vectors (B, C) needed, not {tuple(level.shape)}")
    return torch.cat([level.mean((2, 3)) if level.ndim == 4 else level for level in levels(features)], dim=1)


def at_points(features: Tensor | Sequence[Tensor], points: Tensor, bev_range: Sequence[float]) -> Tensor:
    """Sample BEV maps bilinearly at points; beyond the outermost cell centers the border value.

    Args:
        features: maps (B, C, X, Y), dim 2 along x and dim 3 along y; one or several levels.
        points: (B, M, 2), x and y in meters.
        bev_range: x_min, y_min, x_max, y_max of the maps' outer edges, in meters.

    Returns:
        (B, M, sum of C).
    """
    low, high = points.new_tensor(bev_range[:2]), points.new_tensor(bev_range[2:])
    return torch.cat([_bilinear(level, (points - low) / (high - low)) for level in levels(features)], dim=2)


def _bilinear(level: Tensor, position: Tensor) -> Tensor:
    """Bilinear samples at positions in 0..1. Not grid_sample: its gradient on a GPU is not deterministic."""
    if level.ndim != 4:
        raise ValueError(f"maps (B, C, X, Y) needed, not {tuple(level.shape)}")
    channels, sizes = level.shape[1], position.new_tensor(level.shape[2:])
    cell = (position * sizes - 0.5).clamp(min=0).minimum(sizes - 1)
    low = cell.floor()
    high, part = (low + 1).minimum(sizes - 1), cell - low
    flat = level.flatten(2)
    total = level.new_zeros(len(level), channels, position.shape[1])
    for x, along_x in ((low, 1 - part), (high, part)):
        for y, along_y in ((low, 1 - part), (high, part)):
            cell_index = (x[..., 0] * sizes[1] + y[..., 1]).long()
            corner = flat.gather(2, cell_index[:, None].expand(-1, channels, -1))
            total = total + corner * (along_x[..., 0] * along_y[..., 1])[:, None]
    return total.transpose(1, 2)


def valid_average(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Average maps over their valid locations.

    Args:
        maps: (B, C, H, W).
        mask: (B, H, W) bool, False where a location is ignored (its gradient is exactly 0); None: all count.

    Returns:
        (number of samples with a valid location, C).
    """
    if mask is None:
        return maps.mean((2, 3)) if maps.shape[2:] != (1, 1) else maps.flatten(1)
    total = maps.masked_fill(~mask[:, None], 0.0).sum((2, 3))
    count = mask.sum((1, 2))
    return total[count > 0] / count[count > 0][:, None]
