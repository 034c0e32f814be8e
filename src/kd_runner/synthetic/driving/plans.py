"""Objects in road coordinates, as boxes over time, without overlaps."""

from dataclasses import dataclass, field

import numpy as np

from kd_runner.synthetic.driving.road import Array, Road

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
class Plan:
    """One box in road coordinates.

    It starts at (s, d), moves with `along` and `across` m/s, faces `facing` radians left of the road's direction, its
    lower edge `lift` meters above the ground.
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


def unfold(
    random: np.random.Generator, roads: tuple[Road, ...], times: Array, plans: list[Plan], main: Road
) -> Traffic:
    """Plans as boxes over time; a box that touches an earlier one at any time is left out.

    Args:
        random: draws sizes, colors and types that the plans leave open.
        roads: the main road first.
        times: (T,), seconds.
        plans: the boxes, the most important first.
        main: the road along which touching is judged.

    Returns:
        The boxes that stay, at all times.
    """
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
