"""A LiDAR whose returns are known in closed form."""

import dataclasses

import numpy as np
import pytest

from kd_runner.synthetic.driving.cameras import lidar2ego
from kd_runner.synthetic.driving.lidar import Lidar, cast, scan
from kd_runner.synthetic.driving.scene import Boxes, Scene, make_scene

EXACT = {"range_noise": 0.0, "drop_out": 0.0}


def boxes(*rows: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centers, yaws and sizes of rows (x, y, z, length, width, height, yaw)."""
    numbers = np.array(rows, float).reshape(-1, 7)
    return numbers[:, :3], numbers[:, 6], numbers[:, 3:6]


def slow_cast(rays: np.ndarray, *box: np.ndarray) -> np.ndarray:
    """Face by face: the distance to the first plane that is met within the edges of its face."""
    nearest = np.full(rays.reshape(-1, 3).shape[0], np.inf)
    for center, yaw, size in zip(*box):
        turn = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        middle, turned = turn @ center, rays.reshape(-1, 3) @ turn.T + 1e-12
        for axis in range(3):
            for side in (-0.5, 0.5):
                t = (side * size[axis] + middle[axis]) / turned[:, axis]
                position = np.delete(t[:, None] * turned - middle, axis, axis=1)
                met = (t > 0.2) & (t < nearest) & (np.abs(position) <= np.delete(size, axis) / 2).all(1)
                nearest[met] = t[met]
    return nearest


def empty(scene: Scene, *rows: tuple[float, ...]) -> Scene:
    """The scene with these objects, given in the LiDAR frame, and nothing else."""
    centers, yaws, sizes = boxes(*rows)
    pose = scene.ego2world[0] @ lidar2ego()
    yaws = yaws + np.arctan2(pose[1, 0], pose[0, 0])
    gray = np.full_like(sizes, 0.5)
    objects = Boxes((centers @ pose[:3, :3].T + pose[:3, 3])[None], yaws[None], sizes, gray, ("plain",) * len(sizes))
    none = Boxes(np.zeros((1, 0, 3)), np.zeros((1, 0)), np.zeros((0, 3)), np.zeros((0, 3)), ())
    return dataclasses.replace(scene, objects=objects, scenery=none, names=("car",) * len(sizes))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(random=np.random.default_rng(3), route=0, town="", origin=(1000.0, 500.0), frames=[0])


def test_a_wall_is_where_it_stands() -> None:
    """Its near face lies at x = 9.5: distance 9.5 / cos(azimuth) / cos(elevation)."""
    lidar = Lidar(channels=5, azimuths=72, lowest=-10, highest=10)
    rays = lidar.rays()
    hits = cast(rays, *boxes((10, 0, 0, 1, 8, 6, 0)))
    met = hits.boxes.reshape(5, 72) == 0
    reach = 9.5 / rays[..., 0]
    side, height = np.abs(reach * rays[..., 1]), np.abs(reach * rays[..., 2])
    assert (met == ((rays[..., 0] > 0) & (side < 4) & (height < 3))).all()
    assert np.allclose(hits.distances.reshape(5, 72)[met], reach[met])


def test_equals_a_slow_loop() -> None:
    random = np.random.default_rng(0)
    rows = random.uniform([-12, -12, -2, 0.3, 0.3, 0.3, -3], [12, 12, 2, 4, 3, 3, 3], (25, 7))
    rays = Lidar(channels=6, azimuths=40).rays()
    rows = rows[np.hypot(*rows[:, :2].T) > 3]
    assert np.allclose(cast(rays, *boxes(*rows)).distances, slow_cast(rays, *boxes(*rows)))


def test_boxes_across_the_seam_and_above_are_met() -> None:
    rays = Lidar(channels=9, azimuths=36, lowest=-60, highest=60).rays()
    rows = [(-6, -0.2, 0, 1, 5, 5, 0.3), (6, 0.1, 0, 1, 5, 5, 0.2), (0.1, 0.1, 2, 4, 4, 0.5, 0.4)]
    assert np.allclose(cast(rays, *boxes(*rows)).distances, slow_cast(rays, *boxes(*rows)))


def test_what_is_behind_is_hidden() -> None:
    rays = Lidar(channels=9, azimuths=360, lowest=-5, highest=5).rays()
    hits = cast(rays, *boxes((20, 0, 0, 2, 2, 2, 0), (8, 0, 0, 1, 4, 4, 0)))
    assert set(hits.boxes) == {-1, 1}
    assert (hits.crossed > 0).all()


def test_ground_of_a_scene_is_flat_and_around(scene: Scene) -> None:
    lidar = Lidar(channels=3, azimuths=90, lowest=-12, highest=-4, max_range=20, **EXACT)
    result = scan(empty(scene), 0, lidar, np.random.default_rng(0))
    ring, z = result.points[:, 4], result.points[:, 2]
    on_roof = z > -1.8
    assert np.allclose(z[~on_roof], -lidar2ego()[2, 3], atol=1e-5)
    # The own roof is 0.33 m below. -12 and -8 degrees reach the ground at 8.7 and 13.1 m, -4 degrees beyond 20 m.
    assert np.allclose(z[on_roof], -0.33, atol=1e-5)
    for number, angle in ((0, 12), (1, 8)):
        distances = np.hypot(*result.points[~on_roof & (ring == number), :2].T)
        assert np.allclose(distances, 1.84 / np.tan(np.radians(angle)), atol=1e-4)
        assert len(distances) > 40
    assert set(ring[~on_roof]) == {0, 1}


def test_points_of_an_object_lie_on_it(scene: Scene) -> None:
    lidar = Lidar(channels=16, azimuths=360, **EXACT)
    result = scan(empty(scene, (3, 9, -1, 4, 2, 1.5, 0.7)), 0, lidar, np.random.default_rng(0))
    points = result.points[result.ids == 0, :3] - [3, 9, -1]
    along = np.abs(np.cos(0.7) * points[:, 0] + np.sin(0.7) * points[:, 1]) / 2
    across = np.abs(np.cos(0.7) * points[:, 1] - np.sin(0.7) * points[:, 0]) / 1
    fraction = np.stack([along, across, np.abs(points[:, 2]) / 0.75])
    assert len(points) > 30
    assert np.allclose(fraction.max(0), 1, atol=1e-5)


def test_noise_and_losses(scene: Scene) -> None:
    exact, noisy = Lidar(**EXACT), Lidar(range_noise=0.1, drop_out=0.25)
    first, second = (scan(scene, 0, lidar, np.random.default_rng(0)) for lidar in (exact, noisy))
    assert len(second.points) / len(first.points) == pytest.approx(0.75, abs=0.02)
    ground = second.points[(second.points[:, 4] == 5) & (second.ids < 0)]
    flat = scan(empty(scene), 0, exact, np.random.default_rng(0)).points
    usual = np.linalg.norm(flat[flat[:, 4] == 5, :3], axis=1).max()
    off = np.linalg.norm(ground[:, :3], axis=1) - usual
    assert off[np.abs(off) < 0.5].std() == pytest.approx(0.1, rel=0.2)
