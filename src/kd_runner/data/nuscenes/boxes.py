"""Boxes of LiDAR detection and rigid motions of them.

A box is 9 numbers: center x, y, z (of gravity), length dx, width dy, height dz, yaw about z counter-clockwise from x,
velocity vx, vy; meters, radians, m/s.
"""

import torch
from torch import Tensor


def transformed(boxes: Tensor, matrix: Tensor) -> Tensor:
    """Boxes (..., N, 9) in another frame: matrix (..., 4, 4), a rotation and a shift.

    Where the rotation tilts z, yaw and velocity are those of the turned vectors, seen from above, as in the nuScenes
    devkit.
    """
    matrix = matrix.to(boxes)
    center = boxes[..., :3] @ matrix[..., :3, :3].mT + matrix[..., None, :3, 3]
    return _with_flat(boxes, center, matrix[..., :2, :2])


def untransformed(boxes: Tensor, matrix: Tensor) -> Tensor:
    """The boxes that `transformed` by this matrix are `boxes`, exactly: turned back, tilted headings and velocities
    would lose a part each way.
    """
    matrix = matrix.to(boxes)
    center = (boxes[..., :3] - matrix[..., None, :3, 3]) @ matrix[..., :3, :3]
    return _with_flat(boxes, center, torch.linalg.inv(matrix[..., :2, :2]))


def _with_flat(boxes: Tensor, center: Tensor, flat: Tensor) -> Tensor:
    """Boxes at new centers, their headings and velocities multiplied by `flat` (..., 2, 2)."""
    heading = torch.stack([boxes[..., 6].cos(), boxes[..., 6].sin()], -1) @ flat.mT
    yaw = torch.atan2(heading[..., 1:], heading[..., :1])
    return torch.cat([center, boxes[..., 3:6], yaw, boxes[..., 7:9] @ flat.mT], -1)


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points (P, 3 or more) lie in which boxes (N, 7 or more), surfaces included: (N, P) bool."""
    offset = points[None, :, :3] - boxes[:, None, :3]
    c, v = boxes[:, 6:7].cos(), boxes[:, 6:7].sin()
    half = boxes[:, None, 3:6] / 2
    along, across = c * offset[..., 0] + v * offset[..., 1], c * offset[..., 1] - v * offset[..., 0]
    level = (along.abs() <= half[..., 0]) & (across.abs() <= half[..., 1])
    return level & (offset[..., 2].abs() <= half[..., 2])


def footprints(boxes: Tensor) -> Tensor:
    """Corners (..., 4, 2) of boxes (..., 7 or more) from above, counter-clockwise."""
    signs = boxes.new_tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    offset = signs * boxes[..., None, 3:5]
    c, v = boxes[..., 6, None].cos(), boxes[..., 6, None].sin()
    x, y = c * offset[..., 0] - v * offset[..., 1], v * offset[..., 0] + c * offset[..., 1]
    return torch.stack([x, y], -1) + boxes[..., None, :2]


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Whether boxes overlap from above, (N, 7 or more) by (M, 7 or more): (N, M) bool; touching ones do not.

    Two rectangles are apart if and only if a side of one of them separates them.
    """
    a, b = footprints(first), footprints(second)
    apart = _separated(first, a, b) | _separated(second, b, a).transpose(0, 1)
    return ~apart


def _separated(boxes: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Whether a side direction of boxes (N, 7+) separates `own` (N, 4, 2) from `others` (M, 4, 2): (N, M)."""
    c, v = boxes[:, 6].cos(), boxes[:, 6].sin()
    axes = torch.stack([torch.stack([c, v], -1), torch.stack([-v, c], -1)], 1)  # (N, 2, 2)
    mine = torch.einsum("nad,nkd->nak", axes, own)[:, None]
    theirs = torch.einsum("nad,mkd->nmak", axes, others)
    return ((mine.amax(-1) <= theirs.amin(-1)) | (theirs.amax(-1) <= mine.amin(-1))).any(-1)
