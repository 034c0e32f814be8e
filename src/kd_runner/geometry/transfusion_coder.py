"""Boxes to the ten numbers that TransFusion regresses, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor


class BoxCoder:
    """Box coder of TransFusion.

    The box is that of `geometry.boxes3d`. Its code: x, y in cells of the map from its corner, z, log l, log w, log h,
    sin yaw, cos yaw, vx, vy.

    Args:
        voxel_size: of the voxels, in meters.
        point_cloud_range: x, y, z minimum, then maximum, in meters.
        out_size_factor: voxels along a cell of the map.
    """

    def __init__(self, voxel_size: Sequence[float], point_cloud_range: Sequence[float], out_size_factor: int):
        self.low = tuple(point_cloud_range[:2])
        self.cell = tuple(size * out_size_factor for size in voxel_size[:2])

    def encode(self, boxes: Tensor) -> Tensor:
        """Boxes to codes.

        Args:
            boxes: `(..., 9)`.

        Returns:
            `(..., 10)`.
        """
        x, y, z, *size, yaw, vx, vy = boxes.unbind(-1)
        x, y = (x - self.low[0]) / self.cell[0], (y - self.low[1]) / self.cell[1]
        return torch.stack((x, y, z, *(side.log() for side in size), yaw.sin(), yaw.cos(), vx, vy), -1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes to boxes.

        Args:
            codes: `(..., 10)`.

        Returns:
            `(..., 9)`, yaw in (-pi, pi].
        """
        x, y, z, *size, sin, cos, vx, vy = codes.unbind(-1)
        x, y = x * self.cell[0] + self.low[0], y * self.cell[1] + self.low[1]
        return torch.stack((x, y, z, *(side.exp() for side in size), torch.atan2(sin, cos), vx, vy), -1)
