"""Roads of constant curvature: where a point of the road lies in the world, and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LANE_WIDTH = 3.5
POINT_STEP = 1.0  # meters between the points of a map line


@dataclass(frozen=True)
class Line:
    """A line along the road, `offset` meters to the left of its axis, from `start` to `end` meters along it.

    `kind` is a type of Bench2Drive's map: Broken, Solid, SolidSolid are painted, Center (of a lane) is not.
    """

    kind: str
    offset: float
    start: float
    end: float


@dataclass(frozen=True)
class Volume:
    """Where a light or a stop sign holds: a rectangle of the road, `start..end` along, `right..left` across."""

    kind: str
    start: float
    end: float
    right: float
    left: float


@dataclass(frozen=True)
class Road:
    """An arc of a circle. Road coordinates: s meters along the axis, d meters to its left.

    `curvature` is 1 / radius in 1/m, positive to the left; never 0, for one formula serves straight roads too.
    `right` and `left` are the offsets of the kerbs, `start` and `end` the reach of the asphalt along the road.
    """

    origin: tuple[float, float]
    heading: float
    curvature: float
    start: float
    end: float
    right: float
    left: float
    lines: tuple[Line, ...]
    volumes: tuple[Volume, ...] = ()

    def points(self, s: Array, d: Array) -> Array:
        """World coordinates of road coordinates.

        Args:
            s: meters along the road, any shape.
            d: meters to the left of its axis, the same shape.

        Returns:
            (..., 2), meters.
        """
        k = self.curvature
        along, across = np.sin(k * s) * (1 / k - d), 1 / k - np.cos(k * s) * (1 / k - d)
        c, v = np.cos(self.heading), np.sin(self.heading)
        return np.stack([self.origin[0] + c * along - v * across, self.origin[1] + v * along + c * across], -1)

    def headings(self, s: Array) -> Array:
        """Direction of the axis.

        Args:
            s: meters along the road, any shape.

        Returns:
            Radians, the same shape.
        """
        return self.heading + self.curvature * s

    def coordinates(self, points: Array) -> tuple[Array, Array]:
        """Road coordinates of world coordinates.

        Args:
            points: (..., 2), meters.

        Returns:
            s and d (...), meters.
        """
        c, v = np.cos(self.heading), np.sin(self.heading)
        x, y = points[..., 0] - self.origin[0], points[..., 1] - self.origin[1]
        return self.local_coordinates(c * x + v * y, -v * x + c * y)

    def local_coordinates(self, along: Array, across: Array) -> tuple[Array, Array]:
        """Road coordinates from those in the frame of the road's origin; keeps the precision of its arguments.

        Args:
            along: meters along the road's direction at its origin.
            across: meters to the left of it.

        Returns:
            s and d, meters.
        """
        k, sign = self.curvature, np.sign(self.curvature)
        down = across - 1 / k
        return np.arctan2(sign * along, -sign * down) / k, 1 / k - sign * np.hypot(along, down)

    def map_lines(self) -> list[tuple[str, Array]]:
        """(type, points (n, 3)) of every line, in the direction of s."""
        result = []
        for line in self.lines:
            s = np.linspace(line.start, line.end, max(2, round((line.end - line.start) / POINT_STEP) + 1))
            flat = self.points(s, np.full_like(s, line.offset))
            result.append((line.kind, np.concatenate([flat, np.zeros((len(s), 1))], 1)))
        return result

    def map_volumes(self) -> list[tuple[str, Array]]:
        """(type, corners (4, 3)) of every volume."""
        result = []
        for volume in self.volumes:
            s = np.array([volume.end, volume.start, volume.start, volume.end])
            d = np.array([volume.left, volume.left, volume.right, volume.right])
            result.append((volume.kind, np.concatenate([self.points(s, d), np.zeros((4, 1))], 1)))
        return result


def main_road(
    *,
    origin: tuple[float, float],
    heading: float,
    curvature: float,
    forward: int,
    backward: int,
    shoulder: float,
    center: str,
    gap: tuple[float, float] | None,
    stop: str | None,
    reach: float = 130.0,
) -> Road:
    """A road with right-hand traffic: `forward` lanes at negative d, `backward` ones at positive d.

    Args:
        origin: where s and d are 0, in meters.
        heading: direction there, in radians.
        curvature: of the axis, in 1/m; positive bends left.
        forward: lanes in the direction of s.
        backward: lanes against it.
        shoulder: width between the right edge line and the kerb, for parked cars; meters.
        center: type of the line between the directions.
        gap: (from, to) along the road where another one crosses and edge lines stop; None without a crossing.
        stop: type of the volume in front of the crossing, TrafficLight or StopSign; None for none.
        reach: length of the road to either side of its origin, in meters.

    Returns:
        The road.
    """
    right, left = -forward * LANE_WIDTH, backward * LANE_WIDTH
    pieces = [(-reach, reach)] if gap is None else [(-reach, gap[0]), (gap[1], reach)]
    lines = [Line("Solid", offset, *piece) for offset in (right, left) for piece in pieces]
    lines += [Line(center, 0.0, *piece) for piece in pieces]
    for lane in range(-forward + 1, backward):
        if lane != 0:
            lines += [Line("Broken", lane * LANE_WIDTH, *piece) for piece in pieces]
    lines += [Line("Center", (lane + 0.5) * LANE_WIDTH, -reach, reach) for lane in range(-forward, backward)]
    volumes = () if gap is None or stop is None else (Volume(stop, gap[0] - 4.0, gap[0] - 0.5, right, 0.0),)
    kerbs = (right - shoulder - 0.4, left + 0.4)
    return Road(origin, heading, curvature, -reach, reach, *kerbs, tuple(lines), volumes)


def crossing_road(main: Road, *, position: float, angle: float, reach: float = 70.0) -> Road:
    """A straight road of one lane each way across the main road. Its lines begin outside the kerbs of the main road.

    Args:
        main: the main road.
        position: where it crosses, in meters along the main road.
        angle: of its heading to that of the main road, in radians.
        reach: length of the road to either side, in meters.

    Returns:
        The road.
    """
    origin = main.points(np.array(position), np.array(0.0))
    heading = float(main.headings(np.array(position))) + angle
    near_right, near_left = main.right / np.sin(angle) - 2.0, main.left / np.sin(angle) + 2.0
    pieces = [(-reach, near_right), (near_left, reach)]
    lines = [Line("Solid", offset, *piece) for offset in (-LANE_WIDTH, LANE_WIDTH) for piece in pieces]
    lines += [Line("Broken", 0.0, *piece) for piece in pieces]
    lines += [Line("Center", offset, *piece) for offset in (-LANE_WIDTH / 2, LANE_WIDTH / 2) for piece in pieces]
    kerb = LANE_WIDTH + 0.4
    return Road((float(origin[0]), float(origin[1])), heading, 2e-4, -reach, reach, -kerb, kerb, tuple(lines))
