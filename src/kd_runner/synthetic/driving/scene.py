"""A driving scene over time: roads, objects, scenery, weather and the way of the ego car. No sensor is known here.

World frame: right-handed, x and y on the ground, z up, meters, radians, seconds.
"""

from dataclasses import dataclass

import numpy as np

from kd_runner.synthetic.driving.road import LANE_WIDTH, Array, Road, crossing_road, main_road
from kd_runner.synthetic.driving.traffic import Traffic, place_scenery, place_traffic

FRAME_S = 0.1  # Bench2Drive records at 10 Hz
EGO_SIZE = (4.9, 2.12, 1.51)  # length, width, height of CARLA's Lincoln MKZ


@dataclass(frozen=True)
class Weather:
    """What light and air do to any picture: `haze` in 1/m, `noise` a standard deviation in gray levels of 255."""

    number: int
    brightness: float
    haze: float
    noise: float
    sky: tuple[float, float, float]


WEATHERS = (
    Weather(0, 1.0, 0.004, 2.0, (0.52, 0.70, 0.92)),  # clear
    Weather(1, 0.88, 0.006, 3.0, (0.68, 0.72, 0.76)),  # cloudy
    Weather(2, 0.95, 0.006, 3.0, (0.90, 0.70, 0.52)),  # sunset
    Weather(3, 0.80, 0.014, 5.0, (0.62, 0.64, 0.66)),  # rain
    Weather(4, 0.92, 0.024, 3.0, (0.78, 0.79, 0.80)),  # fog
    Weather(5, 0.55, 0.006, 7.0, (0.16, 0.19, 0.30)),  # dusk
)


@dataclass(frozen=True)
class Boxes:
    """N solid boxes at T times.

    Attributes:
        centers: (T, N, 3), meters.
        yaws: (T, N), radians.
        sizes: (N, 3) as length, width, height.
        colors: (N, 3) from 0 to 1.
        surfaces: N names of what is painted on them.
    """

    centers: Array
    yaws: Array
    sizes: Array
    colors: Array
    surfaces: tuple[str, ...]

    def rows(self, frame: int) -> Array:
        """Boxes of a frame in the world.

        Args:
            frame: its number in the clip.

        Returns:
            (N, 7), as in `geometry.boxes3d` without the velocity.
        """
        return np.concatenate([self.centers[frame], self.sizes, self.yaws[frame][:, None]], 1)


@dataclass(frozen=True)
class Scene:
    """T frames of one clip.

    Args:
        name: Bench2Drive's clip name, `<Scenario>_<Town>_<Route>_<Weather>`.
        town: name of the map that the roads are part of.
        frames: frame numbers (T,) at 10 Hz.
        ego2world: poses (T, 4, 4) of the ego car: x forward, y left, z up from the ground.
        ego_speed: (T,) in m/s.
        ego_yaw_rate: (T,) in rad/s.
        ego_accel: (T, 3) in the ego frame, m/s^2.
        objects: the annotated boxes.
        scenery: the others (poles, houses).
        type_ids: N CARLA type names.
        names: N class names.
        velocities: (T, N, 2) in m/s.
        ids: N numbers that an object keeps.
    """

    name: str
    town: str
    weather: Weather
    roads: tuple[Road, ...]
    frames: Array
    ego2world: Array
    ego_speed: Array
    ego_accel: Array
    ego_yaw_rate: Array
    objects: Boxes
    scenery: Boxes
    type_ids: tuple[str, ...]
    names: tuple[str, ...]
    velocities: Array
    ids: Array


def make_scene(
    *,
    random: np.random.Generator,
    route: int,
    town: str,
    origin: tuple[float, float],
    frames: list[int],
    roadworks: bool = False,
) -> Scene:
    """A random scene: the ego car follows a lane of a gently bent road that another road may cross.

    Cars, vans, trucks, bicycles and pedestrians move, cones, signs and lights stand.

    Args:
        random: draws everything.
        route: number of the clip's route.
        town: its name.
        origin: of the scene in the world, in meters.
        frames: ticks of 10 Hz.
        roadworks: with barriers and motorcycles, too.

    Returns:
        The clip.
    """
    weather = WEATHERS[int(random.integers(len(WEATHERS)))]
    forward, backward = int(random.integers(1, 3)), int(random.integers(1, 3))
    crossed = random.random() < 0.65
    crossing, lit = float(random.uniform(12, 34)), random.random() < 0.75
    # Not below 1/5000 m, where single precision would lose the lines.
    bend = float(np.sign(random.random() - 0.5) * random.uniform(2e-4, 6e-3))
    main = main_road(
        origin=origin,
        heading=float(random.uniform(-np.pi, np.pi)),
        curvature=bend,
        forward=forward,
        backward=backward,
        shoulder=2.6 if random.random() < 0.5 else 0.0,
        center="SolidSolid" if random.random() < 0.5 else "Broken",
        gap=(crossing - LANE_WIDTH - 2.5, crossing + LANE_WIDTH + 2.5) if crossed else None,
        stop="TrafficLight" if lit else "StopSign",
    )
    angle = np.pi / 2 + float(random.uniform(-0.2, 0.2))
    roads = (main, crossing_road(main, position=crossing, angle=angle)) if crossed else (main,)

    times = np.asarray(frames) * FRAME_S
    lane = -(int(random.integers(forward)) + 0.5) * LANE_WIDTH
    speed = float(random.uniform(2.0, 9.0))
    ego2world = _poses(main, speed * times / (1 - bend * lane), lane)
    traffic = place_traffic(
        random, roads, times, ego_lane=lane, ego_speed=speed, ego_size=EGO_SIZE, roadworks=roadworks
    )
    still = place_scenery(random, roads, traffic)
    count = len(times)
    yaw_rate = np.full(count, speed * bend / (1 - bend * lane))
    accel = np.stack([np.zeros(count), speed * yaw_rate, np.full(count, 9.81)], 1)
    return Scene(
        name=f"MiniWorld_{town}_Route{route}_Weather{weather.number}",
        town=town,
        weather=weather,
        roads=roads,
        frames=np.asarray(frames),
        ego2world=ego2world,
        ego_speed=np.full(count, speed),
        ego_accel=accel,
        ego_yaw_rate=yaw_rate,
        objects=_boxes(traffic),
        scenery=_boxes(still),
        type_ids=tuple(traffic.type_ids),
        names=tuple(traffic.surfaces),
        velocities=traffic.velocities,
        ids=np.arange(len(traffic.type_ids)) + 100,
    )


def _poses(road: Road, s: Array, lane: float) -> Array:
    """Ego-to-world matrices (T, 4, 4) at s along the lane `lane` meters left of the axis."""
    yaw = road.headings(s)
    poses = np.tile(np.eye(4), (len(s), 1, 1))
    poses[:, 0, 0], poses[:, 0, 1] = np.cos(yaw), -np.sin(yaw)
    poses[:, 1, 0], poses[:, 1, 1] = np.sin(yaw), np.cos(yaw)
    poses[:, :2, 3] = road.points(s, np.full_like(s, lane))
    return poses


def _boxes(traffic: Traffic) -> Boxes:
    return Boxes(traffic.centers, traffic.yaws, traffic.sizes, traffic.colors, tuple(traffic.surfaces))
