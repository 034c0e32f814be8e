"""Traffic and scenery of a scene, drawn at random in road coordinates."""

import numpy as np

from kd_runner.synthetic.driving.plans import Plan, Traffic, unfold
from kd_runner.synthetic.driving.road import LANE_WIDTH, Array, Road

STOP_SIGN = "traffic.stop"
LIGHT_Z, SIGN_Z = 3.4, 1.9  # meters from the ground to the lower edge
LAMPS = ((0.95, 0.12, 0.08), (0.95, 0.75, 0.1), (0.1, 0.9, 0.35))  # red, amber, green: the color of a light
_VEHICLES = ("car", "van", "truck")
_AHEAD, _BEHIND = 75.0, -55.0  # reach of the traffic along the road, from where the ego car starts


def place_traffic(
    random: np.random.Generator,
    roads: tuple[Road, ...],
    times: Array,
    *,
    ego_lane: float,
    ego_speed: float,
    ego_size: tuple[float, float, float],
    roadworks: bool = False,
) -> Traffic:
    """The annotated objects of a scene. The ego car starts at s = 0 of the first road; no object ever touches it.

    Args:
        random: draws the objects.
        roads: the main road first.
        times: (T,), seconds.
        ego_lane: d of the ego car's lane, in meters.
        ego_speed: in m/s.
        ego_size: length, width, height in meters.
        roadworks: adds rows of barriers, and motorcycles beside the lanes; without it nothing else changes.

    Returns:
        The objects at all times.
    """
    main = roads[0]
    ego = Plan("ego", 0.0, ego_lane, along=ego_speed / (1 - main.curvature * ego_lane), size=ego_size)
    plans = [ego]
    plans += _signals(random, roads)
    plans += _people(random, roads)
    plans += _cones(random, main)
    if roadworks:
        plans += _roadworks(random, main, ego_lane, ego.along)
    # Last, because vehicles are many: one that would touch an earlier object is left out.
    plans += _vehicles(random, roads, ego_lane, ego.along)
    return _drop(unfold(random, roads, times, plans, main), 1)


def place_scenery(random: np.random.Generator, roads: tuple[Road, ...], traffic: Traffic) -> Traffic:
    """Poles under the signs and lights, and houses along the first road: boxes without annotations.

    Args:
        random: draws the houses.
        roads: the main road first.
        traffic: the annotated objects.

    Returns:
        The boxes at all times.
    """
    main, plans = roads[0], []
    for side in (-1, 1):
        s = main.start / 2
        while s < main.end / 2 + 30:
            length, depth, height = random.uniform(10, 24), random.uniform(8, 14), random.uniform(5, 14)
            kerb = main.right if side < 0 else main.left
            d = kerb + side * (4.5 + depth / 2 + random.uniform(0, 6))
            if random.random() < 0.6 and all(abs(_crossing(main, road) - s) > 16 for road in roads[1:]):
                color = tuple(random.uniform(0.35, 0.75) * np.array([1.0, *random.uniform(0.75, 1.0, 2)]))
                size = (length, depth, height)
                plans.append(Plan("house", s, float(d), size=size, color=color))
            s += length + random.uniform(3, 12)
    houses = unfold(random, roads, np.zeros(1), plans, main)
    poles = Traffic()
    mounted = [i for i, name in enumerate(traffic.surfaces) if name in ("traffic_sign", "traffic_light")]
    if mounted:
        lower = traffic.centers[:1, mounted, 2] - traffic.sizes[mounted, 2] / 2
        # Behind its plate, so that the plate hides it from the front.
        back = np.stack([np.cos(traffic.yaws[:1, mounted]), np.sin(traffic.yaws[:1, mounted])], -1)
        flat = traffic.centers[:1, mounted, :2] - back * (traffic.sizes[mounted, :1] / 2 + 0.06)
        poles.centers = np.concatenate([flat, lower[..., None] / 2], -1)
        poles.sizes = np.concatenate([np.full((len(mounted), 2), 0.1), lower[0][:, None]], 1)
        poles.yaws = traffic.yaws[:1, mounted]
        poles.colors = np.full((len(mounted), 3), 0.45)
        poles.velocities = np.zeros((1, len(mounted), 2))
        poles.surfaces, poles.type_ids = ["plain"] * len(mounted), ["static.pole"] * len(mounted)
    both = Traffic(houses.type_ids + poles.type_ids, houses.surfaces + poles.surfaces)
    both.sizes = np.concatenate([houses.sizes, poles.sizes])
    both.colors = np.concatenate([houses.colors, poles.colors])
    for name in ("centers", "yaws", "velocities"):
        joined = np.concatenate([getattr(houses, name), getattr(poles, name)], 1)
        setattr(both, name, np.repeat(joined, len(traffic.centers), 0))
    return both


def _crossing(main: Road, road: Road) -> float:
    return float(main.coordinates(np.array(road.origin))[0])


def _vehicles(random: np.random.Generator, roads: tuple[Road, ...], ego_lane: float, ego_speed: float) -> list[Plan]:
    plans, main = [], roads[0]
    lanes = sorted({line.offset for line in main.lines if line.kind == "Center"})
    for lane in lanes:
        # One speed for a lane, so that nobody runs into the one ahead.
        speed = ego_speed if lane == ego_lane else float(random.uniform(2.0, 10.0))
        s = _BEHIND + float(random.uniform(0, 20))
        while s < _AHEAD:
            name = str(random.choice(_VEHICLES, p=[0.5, 0.25, 0.25]))
            backwards = lane > 0
            plans.append(Plan(name, s, lane, -speed if backwards else speed, facing=np.pi if backwards else 0.0))
            s += float(random.uniform(11, 38))
    kerb = main.right + 0.4
    if min(line.offset for line in main.lines) > kerb + 1.0:  # there is a shoulder to park on
        for s in np.arange(_BEHIND, _AHEAD, 7.5):
            if random.random() < 0.35:
                plans.append(Plan(str(random.choice(["car", "car", "van"])), float(s), kerb + 1.25))
    for number in range(1, len(roads)):
        for side in (-1, 1):
            for s in (12.0 + main.left, 24.0 + main.left):
                if random.random() < 0.6:
                    facing = 0.0 if side < 0 else np.pi
                    plan = Plan(str(random.choice(_VEHICLES)), side * s, side * LANE_WIDTH / 2, facing=facing)
                    plan.road = number
                    plans.append(plan)
    return plans


def _people(random: np.random.Generator, roads: tuple[Road, ...]) -> list[Plan]:
    main, plans = roads[0], []
    for _ in range(int(random.integers(4, 11))):
        s = float(random.uniform(-25, 45))
        side = 1 if random.random() < 0.5 else -1
        kerb = main.left if side > 0 else main.right
        d, kind = kerb + side * float(random.uniform(0.5, 2.6)), random.random()
        if kind < 0.45:
            way = 1 if random.random() < 0.5 else -1
            speed = way * float(random.uniform(0.8, 1.8))
            plans.append(Plan("pedestrian", s, d, speed, facing=0.0 if way > 0 else np.pi))
        elif kind < 0.7:  # crosses the road
            offset, speed = float(random.uniform(main.right, main.left)), -side * float(random.uniform(0.8, 1.6))
            plans.append(Plan("pedestrian", s, offset, across=speed, facing=np.sign(speed) * np.pi / 2))
        else:
            plans.append(Plan("pedestrian", s, d, facing=float(random.uniform(-np.pi, np.pi))))
    edges = (min(line.offset for line in main.lines) + 0.6, max(line.offset for line in main.lines) - 0.6)
    for _ in range(int(random.integers(2, 6))):
        s, backwards = float(random.uniform(-30, 45)), bool(random.random() < 0.5)
        speed, facing = float(random.uniform(2.0, 5.0)), np.pi if backwards else 0.0
        plans.append(Plan("bicycle", s, edges[backwards], -speed if backwards else speed, facing=facing))
    return plans


def _cones(random: np.random.Generator, main: Road) -> list[Plan]:
    plans = []
    for _ in range(int(random.integers(1, 4))):
        first, step = float(random.uniform(-22, 28)), float(random.uniform(1.8, 3.0))
        d = float(random.choice([main.right + 0.7, main.left - 0.7, 0.0]))
        plans += [Plan("traffic_cone", first + i * step, d) for i in range(int(random.integers(3, 6)))]
    return plans


def _roadworks(random: np.random.Generator, main: Road, ego_lane: float, ego_speed: float) -> list[Plan]:
    plans = []
    for _ in range(int(random.integers(1, 4))):
        first, step = float(random.uniform(-22, 28)), float(random.uniform(2.4, 3.2))
        d = float(random.choice([main.right - 0.9, main.left + 0.9]))
        plans += [Plan("barrier", first + i * step, d, facing=np.pi / 2) for i in range(int(random.integers(3, 7)))]
    for _ in range(int(random.integers(2, 5))):
        s, aside = float(random.uniform(-30, 45)), float(random.uniform(-0.8, 0.8))
        moving = Plan("motorcycle", s, ego_lane + aside, ego_speed)  # as the ego car: it runs into nobody
        parked = Plan("motorcycle", s, main.right - 0.7, facing=aside / 2)
        plans.append(moving if random.random() < 0.6 else parked)
    return plans


def _signals(random: np.random.Generator, roads: tuple[Road, ...]) -> list[Plan]:
    """Signs beside the lanes they are meant for, and lights or stop signs before the crossing. All face those lanes."""
    main, plans = roads[0], []
    s = float(random.uniform(-40, -20))
    while s < 50:
        ahead = random.random() < 0.6  # meant for the ego's direction
        d, facing = (main.right - 0.6, np.pi) if ahead else (main.left + 0.6, 0.0)
        plans.append(Plan("traffic_sign", s, d, facing=facing, lift=SIGN_Z))
        s += float(random.uniform(14, 30))
    for volume in main.volumes:
        if volume.kind == "StopSign":
            plans.append(
                Plan("traffic_sign", volume.end, main.right - 0.6, facing=np.pi, lift=SIGN_Z, type_id=STOP_SIGN)
            )
            continue
        far = _crossing(main, roads[-1]) + LANE_WIDTH + 2.5
        lamp = LAMPS[int(random.integers(3))]
        for s, d, facing in (
            (volume.end, main.right - 0.7, np.pi),
            (far, main.right - 0.7, np.pi),
            (far, main.left + 0.7, np.pi),
            (volume.start - 12.0, main.left + 0.7, 0.0),
        ):
            plans.append(Plan("traffic_light", s, d, facing=facing, lift=LIGHT_Z, color=lamp))
    return plans


def _drop(traffic: Traffic, first: int) -> Traffic:
    """Without the first boxes (the ego car)."""
    return Traffic(
        traffic.type_ids[first:],
        traffic.surfaces[first:],
        traffic.sizes[first:],
        traffic.colors[first:],
        traffic.centers[:, first:],
        traffic.yaws[:, first:],
        traffic.velocities[:, first:],
    )
