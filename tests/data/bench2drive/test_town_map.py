"""Lines and volumes of a town near the car."""

import numpy as np

from kd_runner.data.bench2drive.town_map import TownMap


def test_map_lines_near_the_car() -> None:
    """A car at (100, 50) that faces the world's x axis: y > 0 is ahead, x < 0 to the left."""
    lidar2world = np.array([[0.0, 1, 0, 100], [-1, 0, 0, 50], [0, 0, 1, 1.8], [0, 0, 0, 1]])
    ahead = np.stack([np.arange(60.0, 300.0), np.full(240, 52.0), np.zeros(240)], 1)
    square = np.array([[110.0, 45, 0], [114, 45, 0], [114, 49, 0], [110, 49, 0]])
    content = {
        "lane_points": [ahead, ahead + 500, ahead, ahead[:1]],
        "lane_types": ["Solid", "Solid", "NONE", "Broken"],
        "lane_sample_points": [ahead[::50], ahead[::50] + 500, ahead[::50], ahead[:1]],
        "trigger_volumes_points": [square, square + np.array([38, 0, 0])],  # the second one reaches out of range
        "trigger_volumes_types": ["TrafficLight", "StopSign"],
        "trigger_volumes_sample_points": [square.mean(0)] * 2,
    }
    points, labels = TownMap(content).lines_near(np.linalg.inv(lidar2world), 51.2, 11)
    assert labels.tolist() == [1, 4]
    assert np.allclose(points[0], np.stack([np.full(11, -2.0), np.linspace(-40, 51, 11)], 1))
    assert np.allclose(points[1, [0, -1]], [[5, 10], [5, 10]])  # closed
    assert np.abs(points[1] - [3, 12]).max() <= 2 + 1e-9
