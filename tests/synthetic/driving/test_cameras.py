"""The rig and its pictures."""

import numpy as np
import pytest
import torch

from kd_runner.geometry.boxes3d import corners, from_bench2drive
from kd_runner.geometry.projection import lidar2img, project
from kd_runner.synthetic.driving.bench2drive_writer import frame_info
from kd_runner.synthetic.driving.cameras import RIG, lidar2ego
from kd_runner.synthetic.driving.check import reproject
from kd_runner.synthetic.driving.raster import NOTHING, render
from kd_runner.synthetic.driving.scene import Scene, make_scene

WIDTH, HEIGHT = 160, 90


def scene(seed: int) -> Scene:
    random = np.random.default_rng(seed)
    return make_scene(random=random, route=seed, town="Town01", origin=(2000.0, 0.0), frames=[0, 5])


def all_seen(world: Scene, width: int = WIDTH, height: int = HEIGHT) -> dict:
    """An info of the second frame that leaves no object out."""
    return frame_info(world, 1, np.full(len(world.names), 100), width, height, min_pixels=1)


def test_the_rig_looks_where_its_names_say() -> None:
    """A point 10 m to one side in the LiDAR frame (x right, y forward) is in the camera of that side alone."""
    sides = {"CAM_FRONT": (0, 10), "CAM_BACK": (0, -10), "CAM_FRONT_LEFT": (-8.2, 5.7), "CAM_FRONT_RIGHT": (8.2, 5.7),
             "CAM_BACK_LEFT": (-9.4, -3.4), "CAM_BACK_RIGHT": (9.4, -3.4)}  # fmt: skip
    for name, position in sides.items():
        seen = []
        for camera in RIG:
            matrix = lidar2img(camera.cam2ego(), camera.intrinsic(1600, 900), lidar2ego())
            (column, row), depth = project(np.array([*position, -0.5]), matrix)
            seen += [camera.name] if depth > 0 and 0 < column < 1600 and 0 < row < 900 else []
        assert seen == [name]


def test_pictures_are_not_mirrored() -> None:
    for camera in RIG:
        ahead, left, up = camera.cam2ego()[:3, 2], np.cross([0, 0, 1], camera.cam2ego()[:3, 2]), np.array([0, 0, 1])
        matrix = lidar2img(camera.cam2ego(), camera.intrinsic(160, 90), np.eye(4))
        (column, row), _ = project(np.array(camera.position) + 10 * ahead + left + 2 * up, matrix)
        assert column < 80 and row < 45


def test_published_intrinsics() -> None:
    assert RIG[0].intrinsic(1600, 900)[[0, 1, 0, 1], [0, 1, 2, 2]] == pytest.approx([1142.518, 1142.518, 800, 450])
    assert RIG[3].intrinsic(1600, 900)[0, 0] == pytest.approx(560.166)


@pytest.mark.parametrize("seed", range(3))
def test_box_centres_lie_on_their_own_pixels(seed: int) -> None:
    world = scene(seed)
    result = reproject(world, 1, all_seen(world), width=WIDTH, height=HEIGHT)
    assert result.off == []
    assert result.own >= 8


def test_a_turned_info_is_noticed() -> None:
    """The check can fail: three degrees put centers beside their objects."""
    world = scene(1)
    info = all_seen(world, 640, 360)
    c, v = np.cos(np.radians(3)), np.sin(np.radians(3))
    info["gt_boxes"][:, :2] = info["gt_boxes"][:, :2] @ np.array([[c, -v], [v, c]])
    assert reproject(world, 1, info, width=640, height=360).off


def test_an_objects_pixels_fill_the_outline_of_its_box() -> None:
    """No pixel outside the projected corners; and without anything before it, pixels up to all four sides."""
    world = scene(2)
    info, camera = all_seen(world, 320, 180), RIG[0]
    picture = render(world, 1, camera, width=320, height=180, random=np.random.default_rng(0))
    matrix = lidar2img(camera.cam2ego(), camera.intrinsic(320, 180), lidar2ego())
    places, depths = project(corners(from_bench2drive(torch.from_numpy(info["gt_boxes"]))).numpy(), matrix)
    tight = 0
    for n, number in enumerate(info["gt_ids"] - 100):
        rows, columns = np.nonzero(picture.ids == number)
        if depths[n].min() < 0.5 or len(rows) < 20:
            continue
        low, high = places[n].min(0), places[n].max(0)
        assert columns.min() >= low[0] - 1 and columns.max() <= high[0] and rows.min() >= low[1] - 1
        assert rows.max() <= high[1]
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        tight += np.abs(edges - np.concatenate([low, high])).max() < 1.5
    assert tight >= 2


def test_the_nearer_of_two_is_seen() -> None:
    """Depth of every object pixel is that of its box, and no box in front of it has been drawn over."""
    world = scene(0)
    picture = render(world, 0, RIG[0], width=WIDTH, height=HEIGHT, random=np.random.default_rng(0))
    camera_place = (world.ego2world[0] @ RIG[0].cam2ego())[:3, 3]
    ahead = (world.ego2world[0] @ RIG[0].cam2ego())[:3, 2]
    for number in np.unique(picture.ids[picture.ids != NOTHING]):
        middle = (world.objects.centers[0, number] - camera_place) @ ahead
        reach = np.linalg.norm(world.objects.sizes[number]) / 2
        assert (np.abs(picture.depth[picture.ids == number] - middle) <= reach + 1e-3).all()
    assert len(np.unique(picture.ids)) > 5


def test_noise_alone_is_random() -> None:
    world = scene(0)
    first, same, other = (
        render(world, 0, RIG[2], width=64, height=36, random=np.random.default_rng(k)) for k in (0, 0, 1)
    )
    assert np.array_equal(first.image, same.image) and np.array_equal(first.ids, other.ids)
    difference = np.abs(first.image.astype(int) - other.image.astype(int))
    assert 0 < difference.mean() < 4 * world.weather.noise
