"""The world without its sensors."""

import numpy as np
import pytest
import torch

from kd_runner.geometry import boxes3d
from kd_runner.synthetic.driving.scene import EGO_SIZE, Scene, make_scene


def scene(seed: int, frames: int = 4, stride: int = 5) -> Scene:
    random = np.random.default_rng(seed)
    numbers = [i * stride for i in range(frames)]
    return make_scene(random=random, route=seed, town="Town01", origin=(3000.0, 0.0), frames=numbers)


def test_a_seed_gives_one_world() -> None:
    first, same, other = scene(3), scene(3), scene(4)
    assert np.array_equal(first.objects.centers, same.objects.centers)
    assert first.roads == same.roads and first.type_ids == same.type_ids
    assert first.objects.centers.shape != other.objects.centers.shape


@pytest.mark.parametrize("seed", range(3))
def test_nothing_touches(seed: int) -> None:
    """No corner of a box lies in another box, at any time; the ego car is one of them."""
    world = scene(seed, frames=6)
    ego = world.ego2world
    for t in range(6):
        sizes = np.concatenate([world.objects.sizes, [EGO_SIZE]])
        centers = np.concatenate([world.objects.centers[t], [ego[t, :3, 3] + [0, 0, EGO_SIZE[2] / 2]]])
        yaws = np.append(world.objects.yaws[t], np.arctan2(ego[t, 1, 0], ego[t, 0, 0]))
        boxes = np.concatenate([centers, sizes, yaws[:, None]], 1)
        corners = boxes3d.corners(torch.from_numpy(boxes)).numpy()
        for n, (center, size, yaw) in enumerate(zip(centers, sizes, yaws)):
            c, v = np.cos(yaw), np.sin(yaw)
            local = (np.delete(corners, n, 0) - center) @ np.array([[c, -v, 0], [v, c, 0], [0, 0, 1]])
            assert not (np.abs(local) < size / 2).all(-1).any()


@pytest.mark.parametrize("seed", range(5, 9))
def test_velocities_are_what_moves_the_objects(seed: int) -> None:
    world = scene(seed, frames=21, stride=1)
    centers = world.objects.centers[..., :2]
    moved = (centers[2:] - centers[:-2]) / 0.2
    assert np.allclose(moved, world.velocities[1:-1], atol=0.02)
    speed = np.hypot(*np.moveaxis(world.velocities[0], -1, 0))
    assert speed.max() > 1
    # Vehicles drive the way they face; what has no engine stands.
    for n, name in enumerate(world.names):
        if name in ("car", "van", "truck", "bicycle"):
            ahead = np.array([np.cos(world.objects.yaws[0, n]), np.sin(world.objects.yaws[0, n])])
            assert world.velocities[0, n] @ ahead == pytest.approx(speed[n], abs=1e-6)
        elif name.startswith("traffic"):
            assert speed[n] == 0


def test_the_ego_car_drives_its_lane() -> None:
    world = scene(6, frames=21, stride=1)
    d = world.roads[0].coordinates(world.ego2world[:, :2, 3])[1]
    assert np.ptp(d) < 1e-6 and d[0] < 0  # a lane on the right
    moved = np.hypot(*np.diff(world.ego2world[:, :2, 3], axis=0).T) / 0.1
    assert np.allclose(moved, world.ego_speed[0], rtol=1e-3)
    yaw = np.unwrap(np.arctan2(world.ego2world[:, 1, 0], world.ego2world[:, 0, 0]))
    assert np.allclose(np.diff(yaw) / 0.1, world.ego_yaw_rate[0], atol=1e-6)
