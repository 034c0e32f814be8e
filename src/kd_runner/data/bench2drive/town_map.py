"""Map of a CARLA town: lane lines and trigger volumes near the car."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kd_runner.data.bench2drive.classes import LINE_CLASSES

Array = NDArray[Any]

_KEYS = (
    ("lane_points", "lane_types", "lane_sample_points"),
    ("trigger_volumes_points", "trigger_volumes_types"),
)
_SEARCH_RADIUS_M = 50.0


class TownMap:
    """Lines and volumes of a town.

    Args:
        content: one town of `b2d_map_infos.pkl`: lists of equal lengths, `lane_points` (n, 3), `lane_types`,
            `lane_sample_points` (k, 3), and `trigger_volumes_points` (n, 2 or 3), `trigger_volumes_types`. World frame,
            meters.

    Raises:
        ValueError: a key is missing, or lists differ in length.
    """

    def __init__(self, content: dict[str, list[Any]]):
        if not isinstance(content, dict):
            raise ValueError(f"a dict of lists is expected, not a {type(content).__name__}")
        for keys in _KEYS:
            missing = [key for key in keys if key not in content]
            if missing:
                raise ValueError(f"the key {missing[0]!r} is missing")
            lengths = {key: len(content[key]) for key in keys}
            if len(set(lengths.values())) > 1:
                raise ValueError(f"lists of one length are expected, got {lengths}")
        for key in ("lane_types", "trigger_volumes_types"):
            if odd := [kind for kind in content[key] if not isinstance(kind, str)]:
                raise ValueError(f"{key}: text is expected, not {odd[0]!r}")
        label_of = {name: number for number, name in enumerate(LINE_CLASSES)}
        labels = [label_of.get(kind, -1) for kind in content["lane_types"]]
        chosen = [i for i, label in enumerate(labels) if label >= 0 and len(content["lane_sample_points"][i])]
        self.lines = [_points(content["lane_points"][i], f"lane_points[{i}]") for i in chosen]
        self.labels = [labels[i] for i in chosen]
        samples = [_points(content["lane_sample_points"][i], f"lane_sample_points[{i}]")[:, :2] for i in chosen]
        self.samples = np.concatenate(samples) if samples else np.zeros((0, 2))
        self.first_sample = np.cumsum([0, *map(len, samples[:-1])]) if samples else np.zeros(0, int)
        volumes = zip(content["trigger_volumes_points"], content["trigger_volumes_types"])
        self.volumes = [
            (_points(points, f"trigger_volumes_points[{i}]"), label_of[kind])
            for i, (points, kind) in enumerate(volumes)
            if kind in label_of
        ]

    def lines_near(self, world2lidar: Array, range_m: float, num_points: int) -> tuple[Array, Array]:
        """Lines and volumes around the car, as in Bench2DriveZoo.

        A line counts if one of its sample points is within 50 m; its points within the range are kept if there are at
        least two, and resampled at equal distances. A volume counts if all its corners are within the range; it becomes
        a closed polygon.

        Args:
            world2lidar: `(4, 4)`, meters.
            range_m: largest |x| and |y| in the LiDAR frame.
            num_points: points P per line.

        Returns:
            Lines `(n, P, 2)` in the LiDAR frame in meters, and labels `(n,)` in LINE_CLASSES.
        """
        lines, labels = [], []
        if len(self.lines):
            position = np.linalg.inv(world2lidar)[:2, 3]
            distance = np.minimum.reduceat(np.hypot(*(self.samples - position).T), self.first_sample)
            for i in np.flatnonzero(distance < _SEARCH_RADIUS_M):
                points = _to_lidar(self.lines[i], world2lidar)
                points = points[(np.abs(points) < range_m).all(1)]
                if len(points) > 1:
                    lines.append(resample(points, num_points))
                    labels.append(self.labels[i])
        for corners, label in self.volumes:
            points = _to_lidar(corners, world2lidar)
            if (np.abs(points) < range_m).all():
                lines.append(resample(np.concatenate([points, points[:1]]), num_points))
                labels.append(label)
        return np.array(lines).reshape(-1, num_points, 2), np.array(labels, np.int64)


def _points(value: Any, name: str) -> Array:
    """Points (n, 2) or (n, 3) of finite numbers."""
    points = np.asarray(value, float)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or not np.isfinite(points).all():
        raise ValueError(f"{name}: finite points (n, 2) or (n, 3) are expected, got the shape {points.shape}")
    return points


def _to_lidar(points: Array, world2lidar: Array) -> Array:
    """x and y in the LiDAR frame `(n, 2)` of points `(n, 2 or 3)` in the world frame."""
    if points.shape[1] == 2:
        points = np.concatenate([points, np.zeros((len(points), 1))], 1)
    return points[:, :3] @ world2lidar[:2, :3].T + world2lidar[:2, 3]


def resample(points: Array, num_points: int) -> Array:
    """Points at equal distances along a polyline, both ends included.

    Args:
        points: `(n, 2)`.
        num_points: points of the result.

    Returns:
        `(num_points, 2)`.
    """
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    position = np.linspace(0.0, length[-1], num_points)
    return np.stack([np.interp(position, length, points[:, axis]) for axis in (0, 1)], 1)
