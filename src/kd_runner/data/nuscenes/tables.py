"""nuScenes' own JSON tables, joined to what a LiDAR detector needs of every key frame; no devkit."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kd_runner.data.nuscenes.table_files import (
    Row,
    check_box,
    check_pose,
    check_reference,
    check_time,
    load,
    read_json,
)
from kd_runner.data.nuscenes.taxonomy import (
    ATTRIBUTES,
    BICYCLE_RACK,
    CATEGORIES,
    OFFICIAL_SPLITS,
    class_of,
    official_split,
)
from kd_runner.errors import nearest
from kd_runner.geometry.boxes3d import from_nuscenes
from kd_runner.geometry.poses import pose

Array = NDArray[Any]

CHANNEL = "LIDAR_TOP"
_MAX_GAP_S = 1.5  # between annotations whose difference is a velocity; twice that for a centered difference


@dataclass(frozen=True)
class Sweep:
    """One turn of the LiDAR: its file, its time in microseconds, its poses (4, 4) in float64."""

    path: str
    time_us: int
    lidar2ego: Array
    ego2global: Array

    @property
    def lidar2global(self) -> Array:
        """Pose (4, 4) of the LiDAR."""
        return self.ego2global @ self.lidar2ego


@dataclass(frozen=True)
class KeyFrame:
    """An annotated sweep.

    Args:
        token: of the sample; scene: row of its scene in the table.
        sweep: the key frame's own; history: those before it in its scene, latest first.
        boxes: (M, 9) in the global frame as in `geometry.boxes3d`, float64, velocities nan where unknown.
        labels: numbers of the classes (M,); attributes: numbers in ATTRIBUTES (M,), -1 for none.
        ids: numbers (M,) of the objects among all of the split; points: LiDAR and radar points in them (M,).
        racks: bicycle racks (R, 9) in the global frame.
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

    The split is a list of scene names in `<version>/splits.json` where that has it (the devkit reads the same file), or
    one of the official lists.

    Args:
        root: folder that holds the folder `version` with the tables.
        version: v1.0-mini, v1.0-trainval or v1.0-test.
        split: name of the list of scenes.
        classes: annotations of other classes are left out.
        num_history: at most so many sweeps before a key frame are listed.

    Returns:
        The key frames.

    Raises:
        ValueError: tables are missing, cut short, or lack a column; a row names a row that is not there, or stands
            twice; poses or boxes that are no numbers, or sizes that are not above 0; no such split.
    """
    folder = root / version
    if not (folder / "sample_data.json").is_file():
        raise ValueError(f"there is no {folder / 'sample_data.json'}, a table of nuScenes {version}")
    scenes = {row["name"]: row for row in load(folder, "scene").values()}
    numbers = {
        scenes[name]["token"]: number for number, name in enumerate(_scenes_of(folder, version, split, list(scenes)))
    }
    scene_rows = {row["token"]: number for number, row in enumerate(scenes.values())}
    all_samples = load(folder, "sample")
    for row in all_samples.values():
        check_reference(row, "scene_token", scene_rows, folder / "sample.json", "scene")
        check_time(row, folder / "sample.json")
    samples = {token: row for token, row in all_samples.items() if row["scene_token"] in numbers}
    order = sorted(samples, key=lambda token: (numbers[samples[token]["scene_token"]], samples[token]["timestamp"]))
    for previous, token in pairwise(order):
        a, b = samples[previous], samples[token]
        if a["scene_token"] == b["scene_token"] and a["timestamp"] == b["timestamp"]:
            raise ValueError(f"{folder / 'sample.json'} lists one frame twice, as {previous} and as {token}")
    sweeps = _sweeps(folder, samples, all_samples)
    annotations = _annotations(folder, samples, all_samples, classes)
    frames, count = [], 0
    for token in order:
        keys = [row for row in sweeps[token] if row["is_key_frame"]]
        if len(keys) != 1:
            raise ValueError(f"the sample {token} has {len(keys)} key frames of {CHANNEL}: expected one")
        history: list[Sweep] = []
        before = keys[0]["before"]
        while before is not None and len(history) < num_history:
            history.append(before["sweep"])
            before = before["before"]
        rows = [row for row in annotations[token] if row["label"] >= 0]
        frames.append(
            KeyFrame(
                token=token,
                scene=scene_rows[samples[token]["scene_token"]],
                sweep=keys[0]["sweep"],
                history=tuple(history),
                boxes=_boxes(rows),
                labels=np.array([row["label"] for row in rows], np.int64),
                attributes=np.array([row["attribute"] for row in rows], np.int64),
                ids=count + np.arange(len(rows)),
                points=np.array([row["num_lidar_pts"] + row["num_radar_pts"] for row in rows], np.int64),
                racks=_boxes([row for row in annotations[token] if row["label"] < 0]),
            )
        )
        count += len(rows)
    return frames


def _scenes_of(folder: Path, version: str, split: str, names: list[str]) -> list[str]:
    """Names of a split's scenes."""
    path = folder / "splits.json"
    if path.is_file():
        lists: dict[str, list[str]] = read_json(path)
        if split in lists:
            chosen = lists[split]
            if missing := set(chosen) - set(names):
                raise ValueError(f"{path} lists scenes that are not there: {', '.join(sorted(missing))}")
            if repeated := {name for name in chosen if chosen.count(name) > 1}:
                raise ValueError(f"{path} lists scenes twice in {split!r}: {', '.join(sorted(repeated))}")
            return chosen
        if split not in OFFICIAL_SPLITS:
            raise ValueError(f"split: {path} has no split {split!r}.{nearest(split, lists)}")
    chosen = official_split(version, split, names)
    if not chosen:
        raise ValueError(f"{folder} holds no scene of the official split {split!r}")
    return chosen


def _sweeps(folder: Path, samples: dict[str, Row], all_samples: dict[str, Row]) -> dict[str, list[Row]]:
    """Sample token to its LiDAR rows, each with `sweep` and `before`, the row before it.

    Args:
        samples: those of the split; all_samples: those of all splits, which rows may name too.
    """
    sensors = load(folder, "sensor")
    path = folder / "calibrated_sensor.json"
    mounts, others = dict[str, Array](), set[str]()
    for token, row in load(folder, "calibrated_sensor").items():
        check_reference(row, "sensor_token", sensors, path, "sensor")
        if sensors[row["sensor_token"]]["channel"] != CHANNEL:
            others.add(token)
            continue
        check_pose(row, path)
        mounts[token] = pose(row["translation"], row["rotation"])
    path, rows = folder / "sample_data.json", dict[str, Row]()
    for token, row in load(folder, "sample_data").items():
        if not isinstance(row["calibrated_sensor_token"], str) or row["calibrated_sensor_token"] not in mounts:
            check_reference(row, "calibrated_sensor_token", others, path, "calibrated_sensor")
            continue
        check_reference(row, "sample_token", all_samples, path, "sample")
        if row["sample_token"] in samples:
            check_time(row, path)
            rows[token] = row
    poses, by_sample = load(folder, "ego_pose"), defaultdict(list)
    for row in rows.values():
        check_reference(row, "ego_pose_token", poses, path, "ego_pose")
        if row["prev"]:
            check_reference(row, "prev", rows, path, f"the sweeps of {CHANNEL} in sample_data")
            if not rows[row["prev"]]["timestamp"] < row["timestamp"]:
                raise ValueError(f"row {row['token']} of {path}: prev={row['prev']!r} is not earlier")
        if not isinstance(row["is_key_frame"], bool):
            raise ValueError(
                f"row {row['token']} of {path}: is_key_frame={row['is_key_frame']!r}: expected true or false"
            )
        if not isinstance(row["filename"], str) or not row["filename"]:
            raise ValueError(f"row {row['token']} of {path}: filename={row['filename']!r}: expected the path of a file")
        own = poses[row["ego_pose_token"]]
        check_pose(own, folder / "ego_pose.json")
        ego2global = pose(own["translation"], own["rotation"])
        row["sweep"] = Sweep(row["filename"], row["timestamp"], mounts[row["calibrated_sensor_token"]], ego2global)
        row["before"] = rows.get(row["prev"])
        by_sample[row["sample_token"]].append(row)
    return by_sample


def _annotations(
    folder: Path, samples: dict[str, Row], all_samples: dict[str, Row], classes: Sequence[str]
) -> dict[str, list[Row]]:
    """Sample token to its annotations: those of the classes, and bicycle racks (label -1)."""
    path = folder / "sample_annotation.json"
    categories, instances = load(folder, "category"), load(folder, "instance")
    attributes = {
        token: ATTRIBUTES.index(row["name"])
        for token, row in load(folder, "attribute").items()
        if row["name"] in ATTRIBUTES
    }
    rows = dict[str, Row]()
    for token, row in load(folder, "sample_annotation").items():
        check_reference(row, "sample_token", all_samples, path, "sample")
        if row["sample_token"] in samples:
            rows[token] = row
    by_sample = defaultdict(list)
    for row in rows.values():
        if not isinstance(row["attribute_tokens"], list):
            raise ValueError(
                f"row {row['token']} of {path}: attribute_tokens={row['attribute_tokens']!r}: expected a list"
            )
        try:
            category = categories[instances[row["instance_token"]]["category_token"]]["name"]
            row["attribute"] = attributes[row["attribute_tokens"][0]] if row["attribute_tokens"] else -1
        except (KeyError, TypeError) as error:
            raise ValueError(f"the annotation {row['token']} of {path} names {error}, which is in no table") from error
        if category not in CATEGORIES:
            raise ValueError(f"{folder / 'category.json'} has {category!r}.{nearest(str(category), CATEGORIES)}")
        name = class_of(category)
        if name not in classes and category != BICYCLE_RACK:
            continue
        check_box(row, path)
        for neighbor in ("prev", "next"):
            if row[neighbor]:
                check_reference(row, neighbor, rows, path, "the annotations of the split in sample_annotation")
        row["label"] = -1 if name is None else classes.index(name)
        row["velocity"] = _velocity(row, rows, samples)
        by_sample[row["sample_token"]].append(row)
    return by_sample


def _boxes(rows: Sequence[Row]) -> Array:
    """Annotations as boxes (M, 9)."""
    if not rows:
        return np.zeros((0, 9))
    columns = ("translation", "size", "rotation", "velocity")
    return from_nuscenes(*(torch.tensor([row[c] for row in rows], dtype=torch.float64) for c in columns)).numpy()


def _velocity(row: Row, rows: dict[str, Row], samples: dict[str, Row]) -> tuple[float, float]:
    """(vx, vy) in m/s between the annotations of the same object before and after; nan where that is unknown."""
    first, last = rows.get(row["prev"], row), rows.get(row["next"], row)
    times = [samples[one["sample_token"]]["timestamp"] for one in (first, last)]
    seconds = 1e-6 * times[1] - 1e-6 * times[0]
    centered = first is not row and last is not row
    if first is last or seconds > _MAX_GAP_S * (1 + centered):
        return float("nan"), float("nan")
    x, y = ((b - a) / seconds for a, b in zip(first["translation"][:2], last["translation"][:2]))
    return x, y
