"""Bench2Drive's six cameras: where they sit on the car and how they project.

Ego frame: x forward, y left, z up, origin on the ground. Camera frame: x right, y down, z forward. A pixel (column c,
row r) covers [c, c + 1] x [r, r + 1] of the image plane, as CARLA's principal point at half the size implies.
"""

from dataclasses import dataclass

import numpy as np

from kd_runner.synthetic.driving.road import Array


@dataclass(frozen=True)
class Camera:
    """Position in the ego frame (m), direction (radians, left of forward), horizontal field of view (degrees)."""

    name: str
    folder: str
    position: tuple[float, float, float]
    yaw: float
    fov: float

    def cam2ego(self) -> Array:
        """The pose (4, 4)."""
        c, v = np.cos(self.yaw), np.sin(self.yaw)
        pose = np.eye(4)
        pose[:3, 0], pose[:3, 1], pose[:3, 2] = (v, -c, 0.0), (0.0, 0.0, -1.0), (c, v, 0.0)
        pose[:3, 3] = self.position
        return pose

    def intrinsic(self, width: int, height: int) -> Array:
        """Intrinsic matrix; square pixels, principal point in the middle.

        Args:
            width: of the pictures.
            height: of the pictures.

        Returns:
            (3, 3).
        """
        focal = width / (2 * np.tan(np.radians(self.fov) / 2))
        return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def _camera(name: str, position: tuple[float, float, float], degrees: float, fov: float = 70.0) -> Camera:
    return Camera(f"CAM_{name}", f"rgb_{name.lower()}", position, float(np.radians(degrees)), fov)


# As Bench2Drive's sensor agent mounts them; its y and yaw, left-handed, change sign.
RIG = (
    _camera("FRONT", (0.80, 0.0, 1.60), 0.0),
    _camera("FRONT_LEFT", (0.27, 0.55, 1.60), 55.0),
    _camera("FRONT_RIGHT", (0.27, -0.55, 1.60), -55.0),
    _camera("BACK", (-2.0, 0.0, 1.60), 180.0, 110.0),
    _camera("BACK_LEFT", (-0.32, 0.55, 1.60), 110.0),
    _camera("BACK_RIGHT", (-0.32, -0.55, 1.60), -110.0),
)


def lidar2ego() -> Array:
    """Pose (4, 4) of the LiDAR, whose frame all boxes are given in: x right, y forward, z up."""
    pose = np.eye(4)
    pose[:2, :2] = [[0.0, 1.0], [-1.0, 0.0]]
    pose[:3, 3] = -0.39, 0.0, 1.84
    return pose
