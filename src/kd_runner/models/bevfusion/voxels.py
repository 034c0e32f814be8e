"""Hard voxelization with the mean of each voxel's points (Zhou and Tuzel 2018, arXiv 1711.06396, section 2.1.1)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Voxels:
    """Occupied cells of a batch, in ascending order of (sample, x, y, z).

    Attributes:
        features: mean of each cell's points (V, features), float32.
        coordinates: sample, x, y, z of each cell (V, 4), int64.
        dropped: cells of each sample that `max_voxels` cut off (B,), int64.
    """

    features: Tensor
    coordinates: Tensor
    dropped: Tensor


class Voxelize(nn.Module):
    """Points to the mean of each occupied cell's first `max_points` points, in the order of the cloud.

    Of more than `max_voxels` occupied cells those stay whose first point comes first in the cloud, as in the public
    implementation on a CPU; a warning says how many were dropped.

    Args:
        voxel_size: meters along x, y, z.
        point_cloud_range: x, y, z minimum, then maximum, in meters. Points outside do not count; a point on the maximum
            is outside.
        max_points: points of a cell that are averaged.
        max_voxels: limits for a sample in training and in evaluation.
    """

    size: Tensor
    low: Tensor

    def __init__(
        self,
        voxel_size: Sequence[float],
        point_cloud_range: Sequence[float],
        max_points: int = 10,
        max_voxels: tuple[int, int] = (120_000, 160_000),
    ):
        super().__init__()
        self.max_points, self.max_voxels = max_points, tuple(max_voxels)
        self.shape = grid_shape(voxel_size, point_cloud_range)
        self.register_buffer("size", torch.tensor(voxel_size, dtype=torch.float32), persistent=False)
        self.register_buffer("low", torch.tensor(point_cloud_range[:3], dtype=torch.float32), persistent=False)

    @torch.no_grad()
    def forward(self, points: Tensor, num_points: Tensor) -> Voxels:
        """Average the points of each cell.

        Args:
            points: `(B, P, features >= 3)`: x, y, z, ... in meters, padded.
            num_points: `(B,)`, how many rows of `points` are valid.

        Returns:
            The occupied cells.

        Raises:
            ValueError: no point of the batch lies in the range.
        """
        batch, length, channels = points.shape
        points = points.float()
        cell = ((points[..., :3] - self.low) / self.size).floor().long()
        shape = cell.new_tensor(self.shape)
        inside = ((cell >= 0) & (cell < shape)).all(-1)
        inside &= torch.arange(length, device=points.device) < num_points[:, None]
        sample = torch.arange(batch, device=points.device)[:, None].expand(batch, length)
        key = ((sample * shape[0] + cell[..., 0]) * shape[1] + cell[..., 1]) * shape[2] + cell[..., 2]
        if not inside.any():
            raise ValueError("no point of the batch lies in point_cloud_range: is it in meters of the lidar frame?")
        flat = points.reshape(-1, channels)[inside.flatten()]
        # Stable, so that a cell's points keep the order of the cloud.
        key, order = key[inside].sort(stable=True)
        unique, count = key.unique_consecutive(return_counts=True)
        start = count.cumsum(0) - count
        sample = unique // (shape[0] * shape[1] * shape[2])
        keep, dropped = self._limit(sample, order[start], batch)
        unique, count, start, sample = unique[keep], count[keep], start[keep], sample[keep]
        # A padded gather instead of a scatter: the sum has one order on every device.
        count = count.clamp(max=self.max_points)
        slot = torch.arange(self.max_points, device=points.device)
        filled = slot < count[:, None]
        rows = order[torch.where(filled, start[:, None] + slot, start[:, None])]
        features = (flat[rows] * filled[..., None]).sum(1) / count[:, None]
        z, y, x = unique % shape[2], unique // shape[2] % shape[1], unique // (shape[1] * shape[2]) % shape[0]
        return Voxels(features, torch.stack((sample, x, y, z), 1), dropped)

    def _limit(self, sample: Tensor, first: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Which voxels stay (V,), and how many of each sample go. `first` is the place of each one's first point."""
        limit = self.max_voxels[0 if self.training else 1]
        total = torch.bincount(sample, minlength=batch)
        dropped = (total - limit).clamp(min=0)
        if not dropped.any():
            return torch.ones_like(sample, dtype=torch.bool), dropped
        warnings.warn(
            f"{int(dropped.sum())} of {len(sample)} voxels dropped: max_voxels={limit} for a sample is too low",
            stacklevel=3,
        )
        # Places are in the order of the samples too, so that a sample's voxels stay together.
        order = first.argsort()
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        return rank - (total.cumsum(0) - total)[sample] < limit, dropped


def grid_shape(voxel_size: Sequence[float], point_cloud_range: Sequence[float]) -> tuple[int, int, int]:
    """Cells along x, y, z.

    Args:
        voxel_size: meters along x, y, z.
        point_cloud_range: x, y, z minimum, then maximum, in meters.

    Returns:
        The number of cells along each axis.

    Raises:
        ValueError: a size of 0 or below; the range is no whole number of voxels.
    """
    if min(voxel_size) <= 0:
        raise ValueError(f"voxel_size={list(voxel_size)}: must be above 0")
    shape = []
    for axis, size, low, high in zip("xyz", voxel_size, point_cloud_range[:3], point_cloud_range[3:]):
        cells = (high - low) / size
        if abs(cells - round(cells)) > 1e-3 or round(cells) < 1:
            raise ValueError(f"point_cloud_range: {low}..{high} m along {axis} is no whole number of {size} m voxels")
        shape.append(round(cells))
    return shape[0], shape[1], shape[2]
