"""Points to pixels, by hand."""

import numpy as np

from kd_runner.geometry.projection import lidar2img, project

INTRINSIC = np.array([[100.0, 0, 80], [0, 100.0, 45], [0, 0, 1]])
# A camera 1 m above the LiDAR that looks along +y: x right, y down (the LiDAR's -z), z forward (the LiDAR's y).
CAM2EGO = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1], [0, 0, 0, 1]])


def test_a_point_ahead_of_a_camera() -> None:
    """10 m ahead, 2 m right, 1 m below the camera: 100 * 2 / 10 = 20 columns right, 10 rows down of (80, 45)."""
    pixel, depth = project(np.array([2.0, 10.0, 0.0]), lidar2img(CAM2EGO, INTRINSIC, np.eye(4)))
    assert np.allclose(pixel, [100, 55]) and np.isclose(depth, 10)


def test_the_pose_of_the_lidar_counts() -> None:
    """The LiDAR stands 3 m behind the origin: what is 10 m before it is 7 m before the camera."""
    pose = np.eye(4)
    pose[1, 3] = -3.0
    pixel, depth = project(np.array([[0.7, 10.0, 1.0]]), lidar2img(CAM2EGO, INTRINSIC, pose))
    assert np.allclose(pixel, [[90, 45]]) and np.allclose(depth, [7])


def test_behind_the_camera_the_depth_is_negative() -> None:
    _, depth = project(np.array([[0.0, -4.0, 1.0], [0.0, 0.0, 1.0]]), lidar2img(CAM2EGO, INTRINSIC, np.eye(4)))
    assert np.allclose(depth, [-4, 0])
