"""Names of nuScenes: 23 categories, the 10 classes of its detection benchmark, attributes and official scene lists."""

from collections.abc import Sequence

from kd_runner.errors import nearest

# Class of the detection benchmark to the categories that it joins.
_CLASS_CATEGORIES = {
    "car": ("vehicle.car",),
    "truck": ("vehicle.truck",),
    "construction_vehicle": ("vehicle.construction",),
    "bus": ("vehicle.bus.bendy", "vehicle.bus.rigid"),
    "trailer": ("vehicle.trailer",),
    "barrier": ("movable_object.barrier",),
    "motorcycle": ("vehicle.motorcycle",),
    "bicycle": ("vehicle.bicycle",),
    "pedestrian": (
        "human.pedestrian.adult",
        "human.pedestrian.child",
        "human.pedestrian.construction_worker",
        "human.pedestrian.police_officer",
    ),
    "traffic_cone": ("movable_object.trafficcone",),
}
CLASSES = tuple(_CLASS_CATEGORIES)
BICYCLE_RACK = "static_object.bicycle_rack"
CATEGORIES = (
    *(name for names in _CLASS_CATEGORIES.values() for name in names),
    "animal",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    BICYCLE_RACK,
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
)
ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)
_CLASS_OF = {category: name for name, categories in _CLASS_CATEGORIES.items() for category in categories}
MOVING_SPEED = 0.2  # m/s


def class_of(category: str) -> str | None:
    """The class that a category belongs to.

    Args:
        category: nuScenes' name.

    Returns:
        The class; None for categories that are not detected.
    """
    return _CLASS_OF.get(category)


def attribute_of(name: str, speed: float) -> str:
    """The attribute that objects usually have at a speed.

    Args:
        name: class or category.
        speed: in m/s.

    Returns:
        The attribute; "" where there is none.
    """
    kind, moves = _CLASS_OF.get(name, name), speed > MOVING_SPEED
    if kind == "pedestrian":
        return "pedestrian.moving" if moves else "pedestrian.standing"
    if kind in ("bicycle", "motorcycle"):
        return "cycle.with_rider" if moves else "cycle.without_rider"
    if kind == "bus":
        return "vehicle.moving" if moves else "vehicle.stopped"
    if kind in ("car", "truck", "trailer", "construction_vehicle"):
        return "vehicle.moving" if moves else "vehicle.parked"
    return ""


def _numbers(ranges: str) -> frozenset[str]:
    """Scene names of "3 12-18 ..."."""
    names = []
    for part in ranges.split():
        first, _, last = part.partition("-")
        names += [f"scene-{number:04d}" for number in range(int(first), int(last or first) + 1)]
    return frozenset(names)


_MINI = {
    "mini_train": _numbers("61 553 655 757 796 1077 1094 1100"),
    "mini_val": _numbers("103 916"),
}
_VAL = _numbers(
    "3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630 632-638 770-771 775 "
    "777-778 780-784 794-800 802 904-917 919-931 962-963 966-969 971-972 1059-1073"
)

_LISTS = {"v1.0-mini": tuple(_MINI), "v1.0-trainval": ("train", "val"), "v1.0-test": ("test",)}
OFFICIAL_SPLITS = tuple(split for splits in _LISTS.values() for split in splits)


def official_split(version: str, split: str, scenes: Sequence[str]) -> list[str]:
    """Those of the scenes of a version that belong to one of the benchmark's lists.

    The splits `train` and `val` of v1.0-mini are mini_train and mini_val, so that the version is the only thing to
    change.

    Args:
        version: v1.0-mini, v1.0-trainval or v1.0-test.
        split: name of the list.
        scenes: names of the version's scenes.

    Returns:
        Names of scenes.

    Raises:
        ValueError: the version has no such list.
    """
    if version == "v1.0-mini" and f"mini_{split}" in _MINI:
        split = f"mini_{split}"
    known = _LISTS.get(version, ())
    if split not in known:
        raise ValueError(f"{version} has no split {split!r}.{nearest(split, known)}")
    if split in _MINI:
        return [scene for scene in scenes if scene in _MINI[split]]
    return [scene for scene in scenes if split == "test" or (scene in _VAL) == (split == "val")]
