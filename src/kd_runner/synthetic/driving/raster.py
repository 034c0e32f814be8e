"""Pictures of a scene: every pixel's ray is met with the ground and with the boxes, and the nearest one is seen."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from kd_runner.geometry import boxes3d
from kd_runner.geometry.projection import project
from kd_runner.synthetic.driving import surfaces
from kd_runner.synthetic.driving.cameras import Camera
from kd_runner.synthetic.driving.road import Array
from kd_runner.synthetic.driving.scene import Boxes, Scene, Weather

NOTHING = -1  # id of ground, sky and scenery
_NEAR, _FAR = 0.2, 400.0  # meters: what is nearer is not seen, ground beyond is drawn as if there


@dataclass(frozen=True)
class Picture:
    """A camera image, and what each pixel shows.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        ids: (H, W) int32, the number of the object seen, or NOTHING.
        depth: (H, W) in meters, infinite for the sky.
    """

    image: NDArray[np.uint8]
    ids: NDArray[np.int32]
    depth: Array


def render(
    scene: Scene, frame: int, camera: Camera, *, width: int, height: int, random: np.random.Generator
) -> Picture:
    """What a camera sees in one frame.

    Args:
        scene: the clip.
        frame: its number in the clip.
        camera: the camera.
        width: of the picture.
        height: of the picture.
        random: draws the noise.

    Returns:
        The picture, and what each pixel shows.
    """
    directions = _directions(camera, width, height)
    rgb, depth = _background(scene, frame, camera, directions)
    ids = np.full((height, width), NOTHING, np.int32)
    ego2world = scene.ego2world[frame]
    sun = ego2world[:2, :2].T @ np.array([0.8, 0.6])
    for boxes, named in ((scene.scenery, False), (scene.objects, True)):
        seen = _project_boxes(boxes, frame, ego2world, camera, width, height)
        for number, rows, columns in seen:
            turn = _hit(boxes, frame, number, ego2world, camera, directions[rows, columns], depth[rows, columns])
            if turn is None:
                continue
            mask, distance, local, heading = turn
            color = surfaces.paint(boxes.surfaces[number], local, boxes.sizes[number], boxes.colors[number])
            rgb[rows, columns][mask] = color * _shade(local, heading, sun)[:, None]
            depth[rows, columns][mask] = distance
            ids[rows, columns][mask] = number if named else NOTHING
    return Picture(_air(rgb, depth, scene.weather, random), ids, depth)


@lru_cache(maxsize=32)
def _directions(camera: Camera, width: int, height: int) -> Array:
    """Rays (H, W, 3) in the ego frame through the pixels' middles; as long as 1 m of depth."""
    matrix = np.linalg.inv(camera.intrinsic(width, height))
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ matrix.T
    return (rays @ camera.cam2ego()[:3, :3].T).astype(np.float32)


def _background(scene: Scene, frame: int, camera: Camera, directions: Array) -> tuple[Array, Array]:
    """Colors and depths of sky and ground. The cameras look level: all rows from the middle on see the ground."""
    height, width = directions.shape[:2]
    horizon = height // 2
    sky = np.array(scene.weather.sky, np.float32)
    rise = np.linspace(1.0, 0.0, horizon, dtype=np.float32)[:, None, None]
    rgb = np.empty((height, width, 3), np.float32)
    rgb[:horizon] = sky * (1 - 0.35 * rise) + 0.25 * (1 - rise) * (1 - sky)
    depth = np.full((height, width), np.inf, np.float32)
    if height % 2:
        horizon += 1  # the middle row of an odd height looks along the ground
        rgb[horizon - 1] = sky
    rays = directions[horizon:]
    depth[horizon:] = np.minimum(camera.position[2] / -rays[..., 2], _FAR)
    flat = rays[..., :2] * depth[horizon:, :, None] + np.array(camera.position[:2], np.float32)
    spots, spread = [], []
    for road in scene.roads:
        along, across = _in_road_frame(flat, scene.ego2world[frame], road.origin, road.heading)
        s, d = road.local_coordinates(along, across)
        spots.append((s, d))
        spread.append(np.abs(np.gradient(d, axis=1)) + np.abs(np.gradient(d, axis=0)))
    rgb[horizon:] = surfaces.ground(scene.roads, spots, np.stack(spread))
    return rgb, depth


def _in_road_frame(flat: Array, ego2world: Array, origin: tuple[float, float], heading: float) -> tuple[Array, Array]:
    """Ego points (..., 2) in the frame of a road's origin; world coordinates, large, are never formed."""
    c, v = np.cos(heading), np.sin(heading)
    turn = np.array([[c, v], [-v, c]]) @ ego2world[:2, :2]
    shift = np.array([[c, v], [-v, c]]) @ (ego2world[:2, 3] - np.array(origin))
    local = flat @ turn.T.astype(np.float32) + shift.astype(np.float32)
    return local[..., 0], local[..., 1]


def _project_boxes(
    boxes: Boxes, frame: int, ego2world: Array, camera: Camera, width: int, height: int
) -> list[tuple[int, slice, slice]]:
    """(number, rows, columns) of the boxes that may be in the picture, nearest first; the rest is never looked at."""
    if not len(boxes.sizes):
        return []
    corners = boxes3d.corners(torch.from_numpy(boxes.rows(frame))).numpy()
    world2cam = np.linalg.inv(ego2world @ camera.cam2ego())
    matrix = np.eye(4)
    matrix[:3, :3] = camera.intrinsic(width, height)
    places, depths = project(corners, matrix @ world2cam)
    whole = depths.min(1) > _NEAR
    low, high = np.floor(places.min(1)).astype(int), np.ceil(places.max(1)).astype(int)
    low[~whole], high[~whole] = 0, (width, height)  # partly behind the camera: its outline is unknown
    low, high = np.maximum(low, 0), np.minimum(high, (width, height))
    inside = (depths.max(1) > _NEAR) & (low < high).all(1)
    order = sorted(np.flatnonzero(inside), key=lambda n: depths[n].mean())
    return [(int(n), slice(low[n, 1], high[n, 1]), slice(low[n, 0], high[n, 0])) for n in order]


def _hit(
    boxes: Boxes, frame: int, number: int, ego2world: Array, camera: Camera, directions: Array, depth: Array
) -> tuple[NDArray[np.bool_], Array, Array, float] | None:
    """Where rays (h, w, 3) enter a box nearer than `depth` (h, w); None if none does.

    Gives the mask (h, w), distances (n,), positions on the box (n, 3) from -1 to 1, and the box's heading in the ego
    frame.
    """
    heading = float(boxes.yaws[frame, number] - np.arctan2(ego2world[1, 0], ego2world[0, 0]))
    turn = np.array([[np.cos(heading), np.sin(heading), 0], [-np.sin(heading), np.cos(heading), 0], [0, 0, 1]])
    center = ego2world[:3, :3].T @ (boxes.centers[frame, number] - ego2world[:3, 3])
    half = (boxes.sizes[number] / 2).astype(np.float32)
    start = (turn @ (np.array(camera.position) - center)).astype(np.float32)
    rays = directions @ turn.T.astype(np.float32)
    # Axis by axis: reductions over a last axis of three are slow in numpy.
    enter, leave = np.full_like(depth, -np.inf), np.full_like(depth, np.inf)
    for axis in range(3):
        ray = rays[..., axis]
        ray[np.abs(ray) < 1e-9] = 1e-9
        first, second = (-half[axis] - start[axis]) / ray, (half[axis] - start[axis]) / ray
        enter, leave = np.maximum(enter, np.minimum(first, second)), np.minimum(leave, np.maximum(first, second))
    mask = (enter < leave) & (enter > _NEAR) & (enter < depth)
    if not mask.any():
        return None
    distance = enter[mask]
    return mask, distance, (start + rays[mask] * distance[:, None]) / half, heading


def _shade(local: Array, heading: float, sun: Array) -> Array:
    """How bright a face is (n,): the top is lit in full, sides by the way they face."""
    axis = np.abs(local).argmax(1)
    sign = np.sign(local[np.arange(len(local)), axis])
    c, v = np.cos(heading), np.sin(heading)
    towards = np.array([[c, v], [-v, c]]) @ sun
    side = 0.72 + 0.23 * sign * towards[np.minimum(axis, 1)]
    return np.where(axis == 2, 1.0, side)


def _air(rgb: Array, depth: Array, weather: Weather, random: np.random.Generator) -> NDArray[np.uint8]:
    """Haze, brightness and noise."""
    fraction = np.where(np.isfinite(depth), 1 - np.exp(-weather.haze * depth), 0.0)[..., None].astype(np.float32)
    pale = 0.75 * np.array(weather.sky, np.float32) + 0.25
    lit = (rgb + fraction * (pale - rgb)) * np.float32(255 * weather.brightness)
    noise = random.standard_normal(rgb.shape, np.float32) * np.float32(weather.noise)
    return np.clip(lit + noise + 0.5, 0, 255).astype(np.uint8)
