"""Poses of sensors and cars as matrices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def rotation(quaternion: Sequence[float]) -> Array:
    """Matrix of a quaternion.

    Args:
        quaternion: (w, x, y, z) of any length.

    Returns:
        (3, 3).
    """
    w, x, y, z = np.asarray(quaternion, float) / np.linalg.norm(quaternion)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def pose(translation: Sequence[float], quaternion: Sequence[float]) -> Array:
    """Pose of a sensor, or of the car.

    Args:
        translation: x, y, z in meters.
        quaternion: (w, x, y, z) of any length.

    Returns:
        (4, 4).
    """
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(quaternion), translation
    return matrix
