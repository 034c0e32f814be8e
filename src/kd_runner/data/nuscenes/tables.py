"""nuScenes' own JSON tables, joined to what a LiDAR detector needs of every key frame; no devkit."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kd_runner.data.nuscenes.taxonomy import ATTRIBUTES, BICYCLE_RACK, OFFICIAL_SPLITS, class_of, official_split
from kd_runner.errors import ConfigError, nearest

Array = NDArray[Any]
Row = dict[str, Any]

CHANNEL = "LIDAR_TOP"
_MAX_GAP_S = 1.5  # between annotations whose difference is a velocity; twice that for a centerd one


@dataclass(frozen=True)
class Sweep:
    """One turn of the LiDAR: its file, its time in microseconds, its poses (4, 4) in float64."""

    path: str
    time_us: int
    lidar2ego: Array
    ego2global: Array

    @property
    def lidar2global(self) -> Array:
        return self.ego2global @ self.lidar2ego


@dataclass(frozen=True)
class KeyFrame:
    """An annotated sweep.

    Args:
        token: of the sample; scene: its number among the scenes of the split.
        sweep: the key frame's own; history: those before it in its scene, latest first.
        boxes: (M, 9) in the global frame, float64: center, length, width, height, yaw, vx, vy, nan where unknown.
        labels: numbers of the classes (M,); attributes: numbers in ATTRIBUTES (M,), -1 for none.
        ids: numbers (M,) of the objects among all of the split; points: LiDAR and radar points in them (M,).
        racks: bicycle racks (R, 7) in the global frame.
    """

    token: str
    scene: int
    sweep: Sweep
    history: tuple[Sweep, ...]
    boxes: Array
    labels: Array
    attributes: Array
    ids: Array
    points: Array
    racks: Array


def read(root: Path, version: str, split: str, classes: Sequence[str], num_history: int) -> list[KeyFrame]:
    """Key frames of a split, scene by scene in the order of the tables, in time.

    The split is a list of scene names in `<version>/splits.json` where that has it (as the devkit's own lists), or one
    of the official lists.

    Args:
        classes: annotations of other classes are left out.
        num_history: how many sweeps before a key frame are listed at most.

    Raises:
        ConfigError: files or the split are missing.
    """
    folder = root / version
    if not (folder / "sample_data.json").is_file():
        raise ConfigError(f"data.root: there is no {folder / 'sample_data.json'}, a table of nuScenes {version}")
    scenes = {row["name"]: row for row in _load(folder, "scene")}
    chosen = _scenes_of(folder, version, split, list(scenes))
    numbers = {scenes[name]["token"]: number for number, name in enumerate(chosen)}
    places = {row["token"]: place for place, row in enumerate(scenes.values())}
    samples = {row["token"]: row for row in _load(folder, "sample") if row["scene_token"] in numbers}
    sweeps = _sweeps(folder, samples)
    annotations = _annotations(folder, samples, classes)
    frames, count = [], 0
    for token in sorted(samples, key=lambda t: (numbers[samples[t]["scene_token"]], samples[t]["timestamp"])):
        row = next((row for row in sweeps[token] if row["is_key_frame"]), None)
        if row is None:
            raise ConfigError(f"data.root: the sample {token} has no key frame of {CHANNEL}")
        history: list[Sweep] = []
        before = row["before"]
        while before is not None and len(history) < num_history:
            history.append(before["sweep"])
            before = before["before"]
        objects = annotations[token]
        found = [o for o in objects if o["label"] >= 0]
        frames.append(
            KeyFrame(
                token=token,
                scene=places[samples[token]["scene_token"]],
                sweep=row["sweep"],
                history=tuple(history),
                boxes=np.array([o["box"] for o in found], float).reshape(-1, 9),
                labels=np.array([o["label"] for o in found], np.int64),
                attributes=np.array([o["attribute"] for o in found], np.int64),
                ids=count + np.arange(len(found)),
                points=np.array([o["points"] for o in found], np.int64),
                racks=np.array([o["box"][:7] for o in objects if o["label"] < 0], float).reshape(-1, 7),
            )
        )
        count += len(found)
    return frames


def _load(folder: Path, name: str) -> list[Row]:
    path = folder / f"{name}.json"
    if not path.is_file():
        raise ConfigError(f"data.root: there is no {path}")
    with path.open() as file:
        rows: list[Row] = json.load(file)
    return rows


def _scenes_of(folder: Path, version: str, split: str, names: list[str]) -> list[str]:
    path = folder / "splits.json"
    if path.is_file():
        lists: dict[str, list[str]] = json.loads(path.read_text())
        if split in lists:
            if missing := set(lists[split]) - set(names):
                raise ConfigError(f"data.root: {path} lists scenes that are not there: {', '.join(sorted(missing))}")
            return lists[split]
        if split not in OFFICIAL_SPLITS:
            raise ConfigError(f"data: {path} has no split {split!r}.{nearest(split, lists)}")
    found = official_split(version, split, names)
    if not found:
        raise ConfigError(f"data.root: {folder} holds no scene of the official split {split!r}")
    return found


def _sweeps(folder: Path, samples: dict[str, Row]) -> dict[str, list[Row]]:
    """Sample token to its LiDAR rows, each with `sweep` and `before`, the row before it."""
    sensors = {row["token"] for row in _load(folder, "sensor") if row["channel"] == CHANNEL}
    mounts = {
        row["token"]: pose(row["translation"], row["rotation"])
        for row in _load(folder, "calibrated_sensor")
        if row["sensor_token"] in sensors
    }
    rows = {
        row["token"]: row
        for row in _load(folder, "sample_data")
        if row["calibrated_sensor_token"] in mounts and row["sample_token"] in samples
    }
    places = {row["ego_pose_token"] for row in rows.values()}
    poses = {row["token"]: row for row in _load(folder, "ego_pose") if row["token"] in places}
    found = defaultdict(list)
    for row in rows.values():
        place = poses[row["ego_pose_token"]]
        ego2global = pose(place["translation"], place["rotation"])
        row["sweep"] = Sweep(row["filename"], row["timestamp"], mounts[row["calibrated_sensor_token"]], ego2global)
        row["before"] = rows.get(row["prev"])
        found[row["sample_token"]].append(row)
    return found


def _annotations(folder: Path, samples: dict[str, Row], classes: Sequence[str]) -> dict[str, list[Row]]:
    """Sample token to its annotations: those of the classes, and bicycle racks (label -1)."""
    names = {row["token"]: row["name"] for row in _load(folder, "category")}
    kinds = {row["token"]: names[row["category_token"]] for row in _load(folder, "instance")}
    attributes = {row["token"]: ATTRIBUTES.index(row["name"]) for row in _load(folder, "attribute")}
    rows = {row["token"]: row for row in _load(folder, "sample_annotation") if row["sample_token"] in samples}
    found = defaultdict(list)
    for row in rows.values():
        kind = kinds[row["instance_token"]]
        name = class_of(kind)
        if name not in classes and kind != BICYCLE_RACK:
            continue
        width, length, height = row["size"]
        turn = rotation(row["rotation"])
        yaw = float(np.arctan2(turn[1, 0], turn[0, 0]))
        own = row["attribute_tokens"]
        found[row["sample_token"]].append({
            "box": [*row["translation"], length, width, height, yaw, *_velocity(row, rows, samples)],
            "label": -1 if name is None else classes.index(name),
            "attribute": attributes[own[0]] if own else -1,
            "points": row["num_lidar_pts"] + row["num_radar_pts"],
        })  # fmt: skip
    return found


def _velocity(row: Row, rows: dict[str, Row], samples: dict[str, Row]) -> tuple[float, float]:
    """(vx, vy) in m/s between the annotations of the same object before and after; nan where that is unknown."""
    first, last = rows.get(row["prev"], row), rows.get(row["next"], row)
    times = [samples[one["sample_token"]]["timestamp"] for one in (first, last)]
    seconds = 1e-6 * times[1] - 1e-6 * times[0]
    centerd = first is not row and last is not row
    if first is last or seconds > _MAX_GAP_S * (1 + centerd):
        return float("nan"), float("nan")
    x, y = ((b - a) / seconds for a, b in zip(first["translation"][:2], last["translation"][:2]))
    return x, y


def rotation(quaternion: Sequence[float]) -> Array:
    """The matrix (3, 3) of a quaternion (w, x, y, z) of any length."""
    w, x, y, z = np.asarray(quaternion, float) / np.linalg.norm(quaternion)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def pose(translation: Sequence[float], quaternion: Sequence[float]) -> Array:
    """The pose (4, 4) of a sensor, or of the car."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(quaternion), translation
    return matrix
