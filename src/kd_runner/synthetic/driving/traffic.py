"""Who is on the road: objects drawn at random in road coordinates, without overlaps, and where they are over time."""

from dataclasses import dataclass, field

import numpy as np

from kd_runner.synthetic.driving.road import LANE_WIDTH, Array, Road

# Class: CARLA types, (length, width, height) in meters, and how far each size may vary.
KINDS: dict[str, tuple[tuple[str, ...], tuple[float, float, float], float]] = {
    "car": (("vehicle.lincoln.mkz_2020", "vehicle.audi.tt", "vehicle.tesla.model3"), (4.5, 1.9, 1.5), 0.08),
    "van": (("vehicle.ford.ambulance",), (6.0, 2.2, 2.5), 0.08),
    "truck": (("vehicle.carlamotors.firetruck",), (8.3, 2.7, 3.6), 0.06),
    "bicycle": (("vehicle.bh.crossbike", "vehicle.diamondback.century"), (1.6, 0.6, 1.65), 0.05),
    "pedestrian": (
        ("walker.pedestrian.0001", "walker.pedestrian.0015", "walker.pedestrian.0046"),
        (0.5, 0.55, 1.75),
        0.1,
    ),
    "traffic_cone": (("static.prop.constructioncone",), (0.45, 0.45, 0.8), 0.05),
    "traffic_sign": (("traffic.speed_limit.30", "traffic.speed_limit.60"), (0.12, 0.85, 0.85), 0.05),
    "traffic_light": (("traffic.traffic_light",), (0.4, 0.5, 1.3), 0.05),
    "barrier": (("static.prop.streetbarrier",), (0.5, 2.2, 1.0), 0.08),
    "motorcycle": (("vehicle.yamaha.yzf",), (2.1, 0.8, 1.5), 0.06),  # as barriers, only with `roadworks`
}
STOP_SIGN = "traffic.stop"
LIGHT_Z, SIGN_Z = 3.4, 1.9  # meters from the ground to the lower edge
LAMPS = ((0.95, 0.12, 0.08), (0.95, 0.75, 0.1), (0.1, 0.9, 0.35))  # red, amber, green: the color of a light
_VEHICLES = ("car", "van", "truck")
_AHEAD, _BEHIND = 75.0, -55.0  # reach of the traffic along the road, from where the ego car starts


@dataclass
class Traffic:
    """N boxes at T times; the fields are those of `scene.Boxes`, and `velocities` (T, N, 2) in m/s."""

    type_ids: list[str] = field(default_factory=list)
    surfaces: list[str] = field(default_factory=list)
    sizes: Array = field(default_factory=lambda: np.zeros((0, 3)))
    colors: Array = field(default_factory=lambda: np.zeros((0, 3)))
    centers: Array = field(default_factory=lambda: np.zeros((1, 0, 3)))
    yaws: Array = field(default_factory=lambda: np.zeros((1, 0)))
    velocities: Array = field(default_factory=lambda: np.zeros((1, 0, 2)))


@dataclass
class _Plan:
    """One box in road coordinates: starts at (s, d), moves with `along` and `across` m/s, faces `facing` radians
    left of the road's direction, its lower edge `lift` meters above the ground.
    """

    name: str
    s: float
    d: float
    along: float = 0.0
    across: float = 0.0
    facing: float = 0.0
    lift: float = 0.0
    road: int = 0
    type_id: str | None = None
    size: tuple[float, float, float] | None = None
    color: tuple[float, float, float] | None = None


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
    """The annotated objects of a scene. The ego car starts at s = 0 of the first road; nothing ever touches it.

    `roadworks` adds rows of barriers, and motorcycles beside the lanes; without it nothing else changes.
    """
    main = roads[0]
    ego = _Plan("ego", 0.0, ego_lane, along=ego_speed / (1 - main.curvature * ego_lane), size=ego_size)
    plans = [ego]
    plans += _signals(random, roads)
    plans += _people(random, roads)
    plans += _cones(random, main)
    if roadworks:
        plans += _roadworks(random, main, ego_lane, ego.along)
    # Last, because vehicles are many: one that would touch an earlier object is left out.
    plans += _vehicles(random, roads, ego_lane, ego.along)
    return _drop(_unfold(random, roads, times, plans, main), 1)


def place_scenery(random: np.random.Generator, roads: tuple[Road, ...], traffic: Traffic) -> Traffic:
    """Poles under the signs and lights, and houses along the first road: boxes that nobody annotates."""
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
                plans.append(_Plan("house", s, float(d), size=size, color=color))
            s += length + random.uniform(3, 12)
    houses = _unfold(random, roads, np.zeros(1), plans, main)
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


def _vehicles(random: np.random.Generator, roads: tuple[Road, ...], ego_lane: float, ego_speed: float) -> list[_Plan]:
    plans, main = [], roads[0]
    lanes = sorted({line.offset for line in main.lines if line.kind == "Center"})
    for lane in lanes:
        # One speed for a lane, so that nobody runs into the one ahead.
        speed = ego_speed if lane == ego_lane else float(random.uniform(2.0, 10.0))
        s = _BEHIND + float(random.uniform(0, 20))
        while s < _AHEAD:
            name = str(random.choice(_VEHICLES, p=[0.5, 0.25, 0.25]))
            backwards = lane > 0
            plans.append(_Plan(name, s, lane, -speed if backwards else speed, facing=np.pi if backwards else 0.0))
            s += float(random.uniform(11, 38))
    kerb = main.right + 0.4
    if min(line.offset for line in main.lines) > kerb + 1.0:  # there is a shoulder to park on
        for s in np.arange(_BEHIND, _AHEAD, 7.5):
            if random.random() < 0.35:
                plans.append(_Plan(str(random.choice(["car", "car", "van"])), float(s), kerb + 1.25))
    for number in range(1, len(roads)):
        for side in (-1, 1):
            for s in (12.0 + main.left, 24.0 + main.left):
                if random.random() < 0.6:
                    facing = 0.0 if side < 0 else np.pi
                    plan = _Plan(str(random.choice(_VEHICLES)), side * s, side * LANE_WIDTH / 2, facing=facing)
                    plan.road = number
                    plans.append(plan)
    return plans


def _people(random: np.random.Generator, roads: tuple[Road, ...]) -> list[_Plan]:
    main, plans = roads[0], []
    for _ in range(int(random.integers(4, 11))):
        s = float(random.uniform(-25, 45))
        side = 1 if random.random() < 0.5 else -1
        kerb = main.left if side > 0 else main.right
        d, kind = kerb + side * float(random.uniform(0.5, 2.6)), random.random()
        if kind < 0.45:
            way = 1 if random.random() < 0.5 else -1
            speed = way * float(random.uniform(0.8, 1.8))
            plans.append(_Plan("pedestrian", s, d, speed, facing=0.0 if way > 0 else np.pi))
        elif kind < 0.7:  # crosses the road
            offset, speed = float(random.uniform(main.right, main.left)), -side * float(random.uniform(0.8, 1.6))
            plans.append(_Plan("pedestrian", s, offset, across=speed, facing=np.sign(speed) * np.pi / 2))
        else:
            plans.append(_Plan("pedestrian", s, d, facing=float(random.uniform(-np.pi, np.pi))))
    edges = (min(line.offset for line in main.lines) + 0.6, max(line.offset for line in main.lines) - 0.6)
    for _ in range(int(random.integers(2, 6))):
        s, backwards = float(random.uniform(-30, 45)), bool(random.random() < 0.5)
        speed, facing = float(random.uniform(2.0, 5.0)), np.pi if backwards else 0.0
        plans.append(_Plan("bicycle", s, edges[backwards], -speed if backwards else speed, facing=facing))
    return plans


def _cones(random: np.random.Generator, main: Road) -> list[_Plan]:
    plans = []
    for _ in range(int(random.integers(1, 4))):
        first, step = float(random.uniform(-22, 28)), float(random.uniform(1.8, 3.0))
        d = float(random.choice([main.right + 0.7, main.left - 0.7, 0.0]))
        plans += [_Plan("traffic_cone", first + i * step, d) for i in range(int(random.integers(3, 6)))]
    return plans


def _roadworks(random: np.random.Generator, main: Road, ego_lane: float, ego_speed: float) -> list[_Plan]:
    plans = []
    for _ in range(int(random.integers(1, 4))):
        first, step = float(random.uniform(-22, 28)), float(random.uniform(2.4, 3.2))
        d = float(random.choice([main.right - 0.9, main.left + 0.9]))
        plans += [_Plan("barrier", first + i * step, d, facing=np.pi / 2) for i in range(int(random.integers(3, 7)))]
    for _ in range(int(random.integers(2, 5))):
        s, aside = float(random.uniform(-30, 45)), float(random.uniform(-0.8, 0.8))
        moving = _Plan("motorcycle", s, ego_lane + aside, ego_speed)  # as the ego car: it runs into nobody
        parked = _Plan("motorcycle", s, main.right - 0.7, facing=aside / 2)
        plans.append(moving if random.random() < 0.6 else parked)
    return plans


def _signals(random: np.random.Generator, roads: tuple[Road, ...]) -> list[_Plan]:
    """Signs beside the lanes they are meant for, and lights or stop signs before the crossing. All face those lanes."""
    main, plans = roads[0], []
    s = float(random.uniform(-40, -20))
    while s < 50:
        ahead = random.random() < 0.6  # meant for the ego's direction
        d, facing = (main.right - 0.6, np.pi) if ahead else (main.left + 0.6, 0.0)
        plans.append(_Plan("traffic_sign", s, d, facing=facing, lift=SIGN_Z))
        s += float(random.uniform(14, 30))
    for volume in main.volumes:
        if volume.kind == "StopSign":
            plans.append(
                _Plan("traffic_sign", volume.end, main.right - 0.6, facing=np.pi, lift=SIGN_Z, type_id=STOP_SIGN)
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
            plans.append(_Plan("traffic_light", s, d, facing=facing, lift=LIGHT_Z, color=lamp))
    return plans


def _unfold(
    random: np.random.Generator, roads: tuple[Road, ...], times: Array, plans: list[_Plan], main: Road
) -> Traffic:
    """Plans as boxes over time; a box that touches an earlier one at any time is left out."""
    result = Traffic()
    if not plans:
        return result
    sizes, colors = np.zeros((len(plans), 3)), np.zeros((len(plans), 3))
    for i, plan in enumerate(plans):
        types, usual, spread = KINDS.get(plan.name, (("static",), (1.0, 1.0, 1.0), 0.0))
        sizes[i] = plan.size or np.array(usual) * random.uniform(1 - spread, 1 + spread, 3)
        colors[i] = plan.color or random.uniform(0.08, 0.95, 3)
        plan.type_id = plan.type_id or str(random.choice(types))
    numbers = np.array([plan.road for plan in plans])
    s = np.array([plan.s for plan in plans]) + times[:, None] * np.array([plan.along for plan in plans])
    d = np.array([plan.d for plan in plans]) + times[:, None] * np.array([plan.across for plan in plans])
    facing, centers = np.array([plan.facing for plan in plans]), np.zeros((*s.shape, 3))
    yaws, velocities = np.zeros_like(s), np.zeros((*s.shape, 2))
    for number, road in enumerate(roads):
        on = numbers == number
        heading = road.headings(s[:, on])
        centers[:, on, :2], yaws[:, on] = road.points(s[:, on], d[:, on]), heading + facing[on]
        forward, left = (
            np.stack([np.cos(heading), np.sin(heading)], -1),
            np.stack([-np.sin(heading), np.cos(heading)], -1),
        )
        along = np.array([plan.along for plan in plans])[on] * (1 - road.curvature * d[:, on])
        across = np.array([plan.across for plan in plans])[on]
        velocities[:, on] = along[..., None] * forward + across[:, None] * left
    centers[..., 2] = sizes[:, 2] / 2 + np.array([plan.lift for plan in plans])
    keep = _apart(main, centers, yaws, sizes)
    result.type_ids = [str(plans[i].type_id) for i in keep]
    result.surfaces = [plans[i].name for i in keep]
    result.sizes, result.colors = sizes[keep], colors[keep]
    result.centers, result.yaws, result.velocities = centers[:, keep], yaws[:, keep], velocities[:, keep]
    return result


def _apart(main: Road, centers: Array, yaws: Array, sizes: Array, gap: float = 0.25) -> list[int]:
    """Indices of boxes that never touch one kept before them, by their extents along and across the main road."""
    s, d = main.coordinates(centers[..., :2])
    turn = yaws - main.headings(s)
    c, v = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    half = sizes / 2
    long, wide = c * half[:, 0] + v * half[:, 1], v * half[:, 0] + c * half[:, 1]
    keep: list[int] = []
    for i in range(len(sizes)):
        near_s = np.abs(s[:, keep] - s[:, i : i + 1]) < long[:, keep] + long[:, i : i + 1] + gap
        near_d = np.abs(d[:, keep] - d[:, i : i + 1]) < wide[:, keep] + wide[:, i : i + 1] + gap
        level = np.abs(centers[0, keep, 2] - centers[0, i, 2]) < half[keep, 2] + half[i, 2]
        if not (near_s & near_d & level).any():
            keep.append(i)
    return keep


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
