"""3-D boxes: the one convention of the program, and conversions from and to those of other formats.

A box is nine numbers `(x, y, z, l, w, h, yaw, vx, vy)` in a right-handed frame with z up (LiDAR, ego or global):

- x, y, z: center of gravity, in meters;
- l, w, h: full size along the heading, across it and along z, in meters;
- yaw: heading, counter-clockwise from +x, in radians;
- vx, vy: velocity over ground in the axes of the frame, in m/s.

Functions that do not read the velocity take seven numbers as well. Corners are numbered `4 front + 2 left + upper`,
each of the three 0 or 1: corner 0 is the rear right lower one, corner 7 the front left upper one.
"""

import math

import torch
from torch import Tensor

_CORNERS = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_FOOTPRINT = torch.tensor([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])


def corners(boxes: Tensor) -> Tensor:
    """Corners of boxes, numbered as the module says.

    Args:
        boxes: `(..., 7 or more)`.

    Returns:
        `(..., 8, 3)`, in meters.
    """
    offsets = _CORNERS.to(boxes) * boxes[..., None, 3:6]
    xy = _rotate(offsets[..., :2], boxes[..., 6, None])
    return torch.cat((xy, offsets[..., 2:]), -1) + boxes[..., None, :3]


def footprints(boxes: Tensor) -> Tensor:
    """Corners of boxes seen from above, counter-clockwise from the front left one.

    Args:
        boxes: `(..., 7 or more)`.

    Returns:
        `(..., 4, 2)`, in meters.
    """
    offsets = _FOOTPRINT.to(boxes) * boxes[..., None, 3:5]
    return _rotate(offsets, boxes[..., 6, None]) + boxes[..., None, :2]


def transform(boxes: Tensor, matrix: Tensor) -> Tensor:
    """Boxes in another frame.

    Where the rotation tilts z, yaw and velocity are those of the rotated vectors seen from above, as in the nuScenes
    devkit.

    Args:
        boxes: `(..., N, 9)`.
        matrix: `(..., 4, 4)`, a rotation and a translation.

    Returns:
        `(..., N, 9)`.
    """
    matrix = matrix.to(boxes)
    center = boxes[..., :3] @ matrix[..., :3, :3].mT + matrix[..., None, :3, 3]
    return _with_planar_map(boxes, center, matrix[..., :2, :2])


def inverse_transform(boxes: Tensor, matrix: Tensor) -> Tensor:
    """The boxes that `transform` by `matrix` maps to `boxes`.

    `transform` by the inverse matrix would not give them: of tilted headings and velocities a part is lost each way.

    Args:
        boxes: `(..., N, 9)`.
        matrix: `(..., 4, 4)`, a rotation and a translation.

    Returns:
        `(..., N, 9)`.
    """
    matrix = matrix.to(boxes)
    center = (boxes[..., :3] - matrix[..., None, :3, 3]) @ matrix[..., :3, :3]
    return _with_planar_map(boxes, center, torch.linalg.inv(matrix[..., :2, :2]))


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points lie in which boxes, surfaces included.

    Args:
        points: `(P, 3 or more)`.
        boxes: `(N, 7 or more)`.

    Returns:
        `(N, P)` bool.
    """
    offset = points[None, :, :3] - boxes[:, None, :3]
    half = boxes[:, None, 3:6] / 2
    cos, sin = boxes[:, 6:7].cos(), boxes[:, 6:7].sin()
    along = cos * offset[..., 0] + sin * offset[..., 1]
    across = cos * offset[..., 1] - sin * offset[..., 0]
    in_footprint = (along.abs() <= half[..., 0]) & (across.abs() <= half[..., 1])
    return in_footprint & (offset[..., 2].abs() <= half[..., 2])


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Whether boxes overlap seen from above; boxes that only touch do not.

    Two rectangles are apart if and only if a side of one of them separates them.

    Args:
        first: `(N, 7 or more)`.
        second: `(M, 7 or more)`.

    Returns:
        `(N, M)` bool.
    """
    a, b = footprints(first), footprints(second)
    return ~(_separated(first, a, b) | _separated(second, b, a).transpose(0, 1))


def wrap_angle(angle: Tensor) -> Tensor:
    """The same angle within [-pi, pi), in radians.

    Args:
        angle: radians, any shape.

    Returns:
        The same shape.
    """
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def from_bench2drive(boxes: Tensor) -> Tensor:
    """Boxes of Bench2DriveZoo's info files: x, y, z, w, l, h, -heading - pi/2, vx, vy.

    Args:
        boxes: `(..., 9)`.

    Returns:
        `(..., 9)`, the yaw within [-pi, pi).
    """
    return _swap_size_and_yaw(boxes)


def to_bench2drive(boxes: Tensor) -> Tensor:
    """Inverse of `from_bench2drive`.

    Args:
        boxes: `(..., 9)`.

    Returns:
        `(..., 9)`, the yaw within [-pi, pi).
    """
    return _swap_size_and_yaw(boxes)


# The layout that mit-han-lab/bevfusion regresses is the same.
from_mit_bevfusion, to_mit_bevfusion = from_bench2drive, to_bench2drive


def from_nuscenes(translation: Tensor, size: Tensor, rotation: Tensor, velocity: Tensor) -> Tensor:
    """Boxes of nuScenes' annotation table.

    Args:
        translation: `(..., 3)`, center in meters.
        size: `(..., 3)`, w, l, h in meters.
        rotation: `(..., 4)`, quaternion (w, x, y, z) of any length. Of a tilted box the heading seen from above counts.
        velocity: `(..., 2)` in m/s.

    Returns:
        `(..., 9)`.
    """
    w, x, y, z = (rotation / torch.linalg.vector_norm(rotation, dim=-1, keepdim=True)).unbind(-1)
    yaw = torch.atan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))
    return torch.cat((translation, size[..., [1, 0, 2]], yaw[..., None], velocity), -1)


def to_nuscenes(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inverse of `from_nuscenes`.

    Args:
        boxes: `(..., 9)`.

    Returns:
        Translation `(..., 3)`, size `(..., 3)`, rotation `(..., 4)`, velocity `(..., 2)`.
    """
    half = boxes[..., 6] / 2
    rotation = torch.stack((half.cos(), torch.zeros_like(half), torch.zeros_like(half), half.sin()), -1)
    return boxes[..., :3], boxes[..., [4, 3, 5]], rotation, boxes[..., 7:9]


def to_bottom(boxes: Tensor) -> Tensor:
    """Boxes with z of the lower face instead of the center, as mmdetection3d decodes them.

    Args:
        boxes: `(..., 6 or more)`.

    Returns:
        The same shape.
    """
    z, height = boxes[..., 2:3], boxes[..., 5:6]
    return torch.cat((boxes[..., :2], z - height / 2, boxes[..., 3:]), -1)


def _swap_size_and_yaw(boxes: Tensor) -> Tensor:
    """l, w and yaw to w, l and -yaw - pi/2. It is its own inverse."""
    yaw = wrap_angle(-boxes[..., 6:7] - math.pi / 2)
    return torch.cat((boxes[..., :3], boxes[..., [4, 3, 5]], yaw, boxes[..., 7:]), -1)


def _rotate(vectors: Tensor, yaw: Tensor) -> Tensor:
    """Vectors (..., 2) rotated counter-clockwise by yaw (...)."""
    cos, sin = yaw.cos(), yaw.sin()
    x, y = cos * vectors[..., 0] - sin * vectors[..., 1], sin * vectors[..., 0] + cos * vectors[..., 1]
    return torch.stack((x, y), -1)


def _with_planar_map(boxes: Tensor, center: Tensor, matrix: Tensor) -> Tensor:
    """Boxes at new centers, their headings and velocities multiplied by matrix (..., 2, 2)."""
    heading = torch.stack([boxes[..., 6].cos(), boxes[..., 6].sin()], -1) @ matrix.mT
    yaw = torch.atan2(heading[..., 1:], heading[..., :1])
    return torch.cat([center, boxes[..., 3:6], yaw, boxes[..., 7:9] @ matrix.mT], -1)


def _separated(boxes: Tensor, footprint: Tensor, others: Tensor) -> Tensor:
    """Whether a side of boxes (N, 7+) with footprints (N, 4, 2) separates them from footprints (M, 4, 2): (N, M)."""
    cos, sin = boxes[:, 6].cos(), boxes[:, 6].sin()
    axes = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], 1)  # (N, 2, 2)
    first = torch.einsum("nad,nkd->nak", axes, footprint)[:, None]
    second = torch.einsum("nad,mkd->nmak", axes, others)
    return ((first.amax(-1) <= second.amin(-1)) | (second.amax(-1) <= first.amin(-1))).any(-1)
