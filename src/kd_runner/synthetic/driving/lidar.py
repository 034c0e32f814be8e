"""Spinning LiDAR of the synthetic driving world: rays are cast at the ground and at boxes; the nearest hit returns."""

from dataclasses import dataclass

import numpy as np
import torch

from kd_runner.geometry.boxes3d import footprints
from kd_runner.synthetic.driving import surfaces
from kd_runner.synthetic.driving.cameras import lidar2ego
from kd_runner.synthetic.driving.road import Array
from kd_runner.synthetic.driving.scene import EGO_SIZE, Scene

_NEAR = 0.2  # meters: nothing nearer returns


@dataclass(frozen=True)
class Lidar:
    """Geometry and noise of the sensor. A turn takes no time: a sweep is a snapshot.

    Args:
        channels: lasers, spread evenly over `lowest`..`highest` degrees of elevation; ring 0 looks lowest.
        azimuths: rays of a laser in one turn.
        max_range: meters to the farthest return.
        range_noise: standard deviation of a distance in m.
        drop_out: fraction of the returns that are lost.
    """

    channels: int = 24
    azimuths: int = 360
    lowest: float = -24.0
    highest: float = 4.0
    max_range: float = 70.0
    range_noise: float = 0.02
    drop_out: float = 0.05

    def rays(self) -> Array:
        """Unit directions of the rays in the LiDAR frame.

        Returns:
            (channels, azimuths, 3); column k looks 360 (k + 0.5) / azimuths degrees left of x.
        """
        rise = np.radians(np.linspace(self.lowest, self.highest, self.channels))[:, None]
        turn = 2 * np.pi * (np.arange(self.azimuths) + 0.5) / self.azimuths
        flat = np.cos(rise)
        return np.stack([flat * np.cos(turn), flat * np.sin(turn), np.sin(rise) + 0 * turn], -1)


@dataclass(frozen=True)
class Scan:
    """Returns of one turn.

    Attributes:
        points: `(P, 5)` float32 in the LiDAR frame: x, y, z in meters, intensity 0 to 255, ring.
        ids: `(P,)`, index of the object that returned it, -1 for everything else.
        visible_fractions: `(N,)`, hits of an object divided by the hits it would have without occlusion; 0 where it
            would have none.
    """

    points: Array
    ids: Array
    visible_fractions: Array


@dataclass(frozen=True)
class Hits:
    """First hits of R = channels * azimuths rays.

    Attributes:
        distances: `(R,)` in meters, infinite for none.
        boxes: `(R,)`, index of the box, -1 for none.
        crossed: `(N,)`, number of rays that meet a box, hidden or not.
    """

    distances: Array
    boxes: Array
    crossed: Array


def cast(rays: Array, centers: Array, yaws: Array, sizes: Array) -> Hits:
    """Intersect rays from the origin with boxes. A box around the origin is not hit.

    Args:
        rays: (C, A, 3), with columns as `Lidar.rays` has them.
        centers: (N, 3), meters.
        yaws: (N,), radians.
        sizes: (N, 3), meters.

    Returns:
        What each ray hits first.
    """
    channels, azimuths = rays.shape[:2]
    distances, first = np.full(channels * azimuths, np.inf), np.full(channels * azimuths, -1)
    box, column = _candidates(centers, yaws, sizes, azimuths)
    start, directions = _in_box_frame(-centers[box], yaws[box]), _in_box_frame(rays[:, column], yaws[box])
    half = sizes[box] / 2
    enter, leave = np.full(directions.shape[:2], -np.inf), np.full(directions.shape[:2], np.inf)
    for axis in range(3):
        ray = np.where(np.abs(directions[..., axis]) < 1e-9, 1e-9, directions[..., axis])
        one, other = (-half[:, axis] - start[:, axis]) / ray, (half[:, axis] - start[:, axis]) / ray
        enter, leave = np.maximum(enter, np.minimum(one, other)), np.minimum(leave, np.maximum(one, other))
    row, pair = np.nonzero((enter < leave) & (enter > _NEAR))
    met, index = enter[row, pair], row * azimuths + column[pair]
    np.minimum.at(distances, index, met)
    nearest = met == distances[index]
    first[index[nearest]] = box[pair[nearest]]
    return Hits(distances, first, np.bincount(box[pair], minlength=len(sizes)))


def scan(scene: Scene, frame: int, lidar: Lidar, random: np.random.Generator) -> Scan:
    """What the LiDAR measures in one frame. The roof of the ego car is seen too, as in nuScenes.

    Args:
        scene: the clip.
        frame: its number in the clip.
        lidar: the sensor.
        random: draws noise and losses.

    Returns:
        The points.
    """
    lidar2world = scene.ego2world[frame] @ lidar2ego()
    world2lidar = np.linalg.inv(lidar2world)
    roof = lidar2ego()[:3, 3]
    sizes = np.concatenate([scene.objects.sizes, scene.scenery.sizes, [EGO_SIZE]])
    colors = np.concatenate([scene.objects.colors, scene.scenery.colors, [[0.5, 0.5, 0.5]]])
    names = (*scene.objects.surfaces, *scene.scenery.surfaces, "plain")
    centers = np.concatenate([scene.objects.centers[frame], scene.scenery.centers[frame]])
    centers = np.concatenate([centers @ world2lidar[:3, :3].T + world2lidar[:3, 3], [[0, -roof[0], -roof[2]]]])
    centers[-1, 2] += EGO_SIZE[2] / 2
    yaws = np.concatenate([scene.objects.yaws[frame], scene.scenery.yaws[frame]])
    yaws = np.append(yaws + np.arctan2(world2lidar[1, 0], world2lidar[0, 0]), np.pi / 2)

    rays = lidar.rays()
    hits = cast(rays, centers, yaws, sizes)
    rays = rays.reshape(-1, 3)
    down = np.minimum(rays[:, 2], -1e-9)
    ground = roof[2] / -down
    on_ground = ground < hits.distances
    distances = np.minimum(ground, hits.distances)
    boxes = np.where(on_ground, -1, hits.boxes)
    keep = np.flatnonzero((distances < lidar.max_range) & (random.random(len(rays)) >= lidar.drop_out))
    rays, distances, boxes, on_ground = rays[keep], distances[keep], boxes[keep], on_ground[keep]

    exact = rays * distances[:, None]
    gray = np.zeros(len(keep))
    gray[on_ground] = _ground(scene, exact[on_ground] @ lidar2world[:3, :3].T + lidar2world[:3, 3])
    for number in np.unique(boxes[boxes >= 0]):
        on = boxes == number
        local = _in_box_frame(exact[on] - centers[number], yaws[[number]]) / (sizes[number] / 2)
        gray[on] = surfaces.paint(names[number], local, sizes[number], colors[number]).mean(1)
    noisy = rays * (distances + lidar.range_noise * random.standard_normal(len(keep)))[:, None]
    intensity = np.clip(255 * gray * random.uniform(0.85, 1.15, len(keep)), 0, 255).round()
    points = np.column_stack([noisy, intensity, keep // lidar.azimuths]).astype(np.float32)
    count = len(scene.names)
    seen = np.bincount(hits.boxes[hits.boxes >= 0], minlength=len(sizes))
    visible_fractions = (seen / np.maximum(hits.crossed, 1))[:count]
    return Scan(points, np.where(boxes < count, boxes, -1), visible_fractions)


def _ground(scene: Scene, points: Array) -> Array:
    """Brightness (P,) from 0 to 1 of the ground at world points (P, 3)."""
    spots = [road.coordinates(points[:, :2]) for road in scene.roads]
    return surfaces.ground(scene.roads, spots, np.full((len(spots), len(points)), 0.05)).mean(1)


def _in_box_frame(vectors: Array, yaws: Array) -> Array:
    """Vectors (..., P, 3) turned into the axes of boxes with yaws (P,)."""
    c, v = np.cos(yaws), np.sin(yaws)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([c * x + v * y, c * y - v * x, vectors[..., 2]], -1)


def _candidates(centers: Array, yaws: Array, sizes: Array, azimuths: int) -> tuple[Array, Array]:
    """(box, column) pairs such that any ray of the column may meet the box."""
    boxes = np.concatenate([centers, sizes, yaws[:, None]], 1)
    x, y = np.moveaxis(footprints(torch.from_numpy(boxes)).numpy(), -1, 0)
    middle = np.arctan2(centers[:, 1], centers[:, 0])
    spread = np.abs((np.arctan2(y, x) - middle[:, None] + np.pi) % (2 * np.pi) - np.pi).max(1)
    # Around or above the sensor an outline has no width in angle.
    spread[np.hypot(centers[:, 0], centers[:, 1]) <= np.hypot(sizes[:, 0], sizes[:, 1]) / 2] = np.pi
    step = 2 * np.pi / azimuths
    first = np.floor((middle - spread) / step - 0.5).astype(int)
    counts = np.minimum(np.ceil((middle + spread) / step - 0.5).astype(int) - first + 1, azimuths)
    box = np.repeat(np.arange(len(sizes)), counts)
    offset = np.arange(len(box)) - np.repeat(np.cumsum(counts) - counts, counts)
    return box, (first[box] + offset) % azimuths
