"""Points in space to pixels of a camera.

Camera frame: x right, y down, z forward. A pixel (column c, row r) covers [c, c + 1] x [r, r + 1] of the image.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def project(points: Array, matrix: Array) -> tuple[Array, Array]:
    """Pixels and depths of points.

    Args:
        points: `(..., 3)` in meters.
        matrix: `(4, 4)` to homogeneous pixels (column * depth, row * depth, depth).

    Returns:
        Columns and rows `(..., 2)`, and depths `(...)` in meters; what has a depth <= 0 lies behind the camera.
    """
    image = points @ matrix[:3, :3].T + matrix[:3, 3]
    depth = image[..., 2]
    safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    return image[..., :2] / safe[..., None], depth


def lidar2img(cam2ego: Array, intrinsic: Array, lidar2ego: Array) -> Array:
    """The projection from the LiDAR frame to homogeneous pixels.

    Args:
        cam2ego: pose of the camera, `(4, 4)`.
        intrinsic: `(3, 3)`, in pixels.
        lidar2ego: pose of the LiDAR, `(4, 4)`.

    Returns:
        `(4, 4)`.
    """
    padded = np.eye(4)
    padded[:3, :3] = intrinsic
    return padded @ np.linalg.inv(cam2ego) @ lidar2ego
