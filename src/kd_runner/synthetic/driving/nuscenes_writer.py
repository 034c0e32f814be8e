"""The driving world in the on-disk layout of nuScenes v1.0, as its devkit and any reader of nuScenes expect it.

    v1.0-mini/*.json                  13 tables, and splits.json: scenes by name, as the devkit reads own lists
    samples/LIDAR_TOP/*.pcd.bin       sweeps of key frames, float32 rows of x, y, z, intensity, ring
    sweeps/LIDAR_TOP/*.pcd.bin        those between key frames and before the first one
    maps/*.png                        one picture

There are no cameras and no radars: their files are many and no LiDAR detector reads them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kd_runner.data.nuscenes.taxonomy import ATTRIBUTES, CATEGORIES, attribute_of
from kd_runner.geometry.boxes3d import inside
from kd_runner.synthetic.driving.cameras import lidar2ego
from kd_runner.synthetic.driving.lidar import Lidar, Scan, scan
from kd_runner.synthetic.driving.road import Array
from kd_runner.synthetic.driving.scene import FRAME_S, Scene, make_scene
from kd_runner.synthetic.writing import Arguments, sample_random, write_checked

Row = dict[str, Any]

VERSION = "v1.0-mini"  # the devkit takes the short version without the full one's checks
# Not train and val, which the devkit keeps for its own lists.
SPLITS = {"world_train": 0, "world_val": 1, "world_unlabeled": 2}
TABLES = (
    "category",
    "attribute",
    "visibility",
    "instance",
    "sensor",
    "calibrated_sensor",
    "ego_pose",
    "log",
    "scene",
    "sample",
    "sample_data",
    "sample_annotation",
    "map",
)
# Raised whenever the same arguments would give other files.
FORMAT = 3

# A 6 m van for 10 passengers is a small bus; nuScenes has no vans. Signs and lights are not annotated there.
_CATEGORY = {
    "car": "vehicle.car",
    "van": "vehicle.bus.rigid",
    "truck": "vehicle.truck",
    "bicycle": "vehicle.bicycle",
    "motorcycle": "vehicle.motorcycle",
    "pedestrian": "human.pedestrian.adult",
    "traffic_cone": "movable_object.trafficcone",
    "barrier": "movable_object.barrier",
}
_VISIBILITY = ("v0-40", "v40-60", "v60-80", "v80-100")
_KEY_TICKS = 5  # key frames at 2 Hz of a world at 10 Hz
_START_US, _SCENE_US = 1_530_000_000_000_000, 100_000_000
_MARGIN_M = 0.05  # an annotated box is larger than the solid: noise leaves its points inside
_MAX_DISTANCE_M = 65.0


def write(
    root: str | Path,
    *,
    num_train_scenes: int = 60,
    num_val_scenes: int = 20,
    num_unlabeled_scenes: int = 0,
    num_keyframes: int = 4,
    sweeps_between: int = 2,
    channels: int = 24,
    azimuths: int = 360,
    max_range: float = 70.0,
    range_noise: float = 0.02,
    drop_out: float = 0.05,
    seed: int = 0,
) -> Path:
    """Write the scenes below `root` once and return it; a complete data set of the same arguments is used as it is.

    Scene k of a list depends on k, the list and the arguments other than the counts of scenes: a longer list begins
    with the shorter one.

    Args:
        root: a new or empty folder.
        num_train_scenes: scenes of the list `world_train`.
        num_val_scenes: of `world_val`.
        num_unlabeled_scenes: of `world_unlabeled`, which has annotations too, for a reader to leave out.
        num_keyframes: annotated sweeps of a scene, 0.5 s apart.
        sweeps_between: sweeps between two of them, 0 to 4 (nuScenes: 9). As many come before the first key frame, so
            that every key frame has a history.
        channels: see `Lidar`, as for the next four.
        azimuths: see `Lidar`.
        max_range: see `Lidar`.
        range_noise: see `Lidar`.
        drop_out: see `Lidar`.
        seed: seed of all scenes.

    Returns:
        `root`.

    Raises:
        ValueError: an argument is out of range.
        ConfigError: `root` holds anything else.
    """
    arguments: dict[str, Any] = {
        "format": FORMAT,
        "num_train_scenes": num_train_scenes,
        "num_val_scenes": num_val_scenes,
        "num_unlabeled_scenes": num_unlabeled_scenes,
        "num_keyframes": num_keyframes,
        "sweeps_between": sweeps_between,
        "channels": channels,
        "azimuths": azimuths,
        "max_range": max_range,
        "range_noise": range_noise,
        "drop_out": drop_out,
        "seed": seed,
    }
    if not 0 <= sweeps_between < _KEY_TICKS:
        raise ValueError(f"sweeps_between={sweeps_between}: must be 0 to {_KEY_TICKS - 1}")
    counts = ("num_train_scenes", "num_val_scenes", "num_keyframes", "channels", "azimuths")
    return write_checked(root, arguments, {"num_unlabeled_scenes": 0, **dict.fromkeys(counts, 1)}, _fill)


def _fill(folder: Path, arguments: Arguments) -> None:
    lidar = Lidar(**{k: arguments[k] for k in ("channels", "azimuths", "max_range", "range_noise", "drop_out")})
    for name in ("samples/LIDAR_TOP", "sweeps/LIDAR_TOP", "maps", VERSION):
        (folder / name).mkdir(parents=True)
    tables: dict[str, list[Row]] = {name: [] for name in TABLES}
    tables["category"] = [{"token": token("category", n), "name": n, "description": ""} for n in CATEGORIES]
    tables["attribute"] = [{"token": token("attribute", n), "name": n, "description": ""} for n in ATTRIBUTES]
    tables["visibility"] = [{"token": str(n + 1), "level": v, "description": ""} for n, v in enumerate(_VISIBILITY)]
    tables["sensor"] = [{"token": token("sensor"), "channel": "LIDAR_TOP", "modality": "lidar"}]
    step = _KEY_TICKS / (arguments["sweeps_between"] + 1)
    between = [round(i * step) for i in range(arguments["sweeps_between"] + 1)]
    ticks = [_KEY_TICKS * key + b for key in range(-1, arguments["num_keyframes"]) for b in between]
    # From the first sweep after where another key frame would be, to the last key frame.
    ticks = ticks[1 : len(ticks) - arguments["sweeps_between"]]
    splits: dict[str, list[str]] = {}
    for split, code in SPLITS.items():
        splits[split] = []
        for k in range(arguments[split.replace("world", "num") + "_scenes"]):
            random = sample_random(arguments["seed"], code, k)
            name, origin = f"{split}-{k:04d}", (1000.0 * (k + 1), 1000.0 * (code + 1))
            scene = make_scene(random=random, route=k, town="", origin=origin, frames=ticks, roadworks=True)
            scans = [scan(scene, frame, lidar, random) for frame in range(len(ticks))]
            start_us = _START_US + _SCENE_US * (len(SPLITS) * k + code)
            _SceneRows(name, scene, scans, start_us).add(tables, folder)
            splits[split].append(name)
    logs = [row["token"] for row in tables["log"]]
    picture = {"token": token("map"), "filename": f"maps/{token('map')}.png", "category": "semantic_prior"}
    tables["map"] = [{**picture, "log_tokens": logs}]
    Image.new("L", (8, 8)).save(folder / picture["filename"])
    for name, rows in tables.items():
        (folder / VERSION / f"{name}.json").write_text(json.dumps(rows))
    (folder / VERSION / "splits.json").write_text(json.dumps(splits, indent=1) + "\n")


def token(*parts: object) -> str:
    """Name of a row, the same for the same parts.

    Args:
        *parts: what the row is of.

    Returns:
        32 hexadecimal digits.
    """
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


class _SceneRows:
    """One scene as rows of the tables."""

    def __init__(self, name: str, scene: Scene, scans: list[Scan], start_us: int):
        self.name, self.scene, self.scans = name, scene, scans
        self.keys = [n for n, tick in enumerate(scene.frames) if tick >= 0 and tick % _KEY_TICKS == 0]
        self.times = [start_us + round(tick * FRAME_S * 1e6) for tick in scene.frames]

    def add(self, tables: dict[str, list[Row]], folder: Path) -> None:
        name, keys = self.name, self.keys
        pose = {"rotation": _quaternion(lidar2ego()), "translation": lidar2ego()[:3, 3].tolist()}
        sensor = {"token": token(name, "calibrated"), "sensor_token": token("sensor"), **pose, "camera_intrinsic": []}
        tables["calibrated_sensor"].append(sensor)
        log = {"logfile": name, "vehicle": "world", "date_captured": "2018-06-26", "location": "world"}
        tables["log"].append({"token": token(name, "log"), **log})
        ends = {"first_sample_token": token(name, keys[0]), "last_sample_token": token(name, keys[-1])}
        scene = {"token": token(name), "log_token": token(name, "log"), "nbr_samples": len(keys), **ends}
        tables["scene"].append({**scene, "name": name, "description": "ray-cast driving world"})
        for row, (before, key, after) in zip(range(len(keys)), _neighbors(keys)):
            links = {"prev": self._link(before), "next": self._link(after), "scene_token": token(name)}
            tables["sample"].append({"token": token(name, keys[row]), "timestamp": self.times[key], **links})
        self._add_sweeps(tables, folder)
        self._add_annotations(tables)

    def _link(self, frame: int | None, *more: object) -> str:
        return "" if frame is None else token(self.name, frame, *more)

    def _add_sweeps(self, tables: dict[str, list[Row]], folder: Path) -> None:
        for before, n, after in _neighbors(list(range(len(self.scans)))):
            is_key, tick = n in self.keys, token(self.name, n, "sweep")
            path = f"{'samples' if is_key else 'sweeps'}/LIDAR_TOP/{self.name}__LIDAR_TOP__{self.times[n]}.pcd.bin"
            self.scans[n].points.tofile(folder / path)
            pose = self.scene.ego2world[n]
            world_pose = {"rotation": _quaternion(pose), "translation": pose[:3, 3].tolist()}
            tables["ego_pose"].append({"token": tick, "timestamp": self.times[n], **world_pose})
            nearest = min(self.keys, key=lambda key: abs(self.times[key] - self.times[n]))
            tables["sample_data"].append({
                "token": tick,
                "sample_token": token(self.name, nearest),
                "ego_pose_token": tick,
                "calibrated_sensor_token": token(self.name, "calibrated"),
                "timestamp": self.times[n],
                "fileformat": "pcd",
                "is_key_frame": is_key,
                "height": 0,
                "width": 0,
                "filename": path,
                "prev": self._link(before, "sweep"),
                "next": self._link(after, "sweep"),
            })  # fmt: skip

    def _add_annotations(self, tables: dict[str, list[Row]]) -> None:
        """Objects near the ego car that at least one point of the scene shows; a track is every key frame in reach."""
        objects = self.scene.objects
        sizes = objects.sizes + np.array([2, 2, 1]) * _MARGIN_M  # the lower side stays on the ground
        centers = objects.centers + np.array([0, 0, 0.5]) * _MARGIN_M
        near = np.linalg.norm(centers[..., :2] - self.scene.ego2world[:, None, :2, 3], axis=-1) < _MAX_DISTANCE_M
        points = {n: self._points_in(n, centers[n], sizes) for n in self.keys}
        for i, kind in enumerate(self.scene.names):
            track = [n for n in self.keys if near[n, i]]
            if kind not in _CATEGORY or not any(points[n][i] for n in track):
                continue
            category, name = _CATEGORY[kind], token(self.name, "instance", i)
            ends = [token(self.name, n, i) for n in (track[0], track[-1])]
            tables["instance"].append({
                "token": name,
                "category_token": token("category", category),
                "nbr_annotations": len(track),
                "first_annotation_token": ends[0],
                "last_annotation_token": ends[1],
            })  # fmt: skip
            for before, n, after in _neighbors(track):
                attribute = attribute_of(category, float(np.hypot(*self.scene.velocities[n, i])))
                half = objects.yaws[n, i] / 2
                tables["sample_annotation"].append({
                    "token": token(self.name, n, i),
                    "sample_token": token(self.name, n),
                    "instance_token": name,
                    "visibility_token": str(1 + np.searchsorted([0.4, 0.6, 0.8], self.scans[n].visible_fractions[i])),
                    "attribute_tokens": [token("attribute", attribute)] if attribute else [],
                    "translation": centers[n, i].tolist(),
                    "size": sizes[i, [1, 0, 2]].tolist(),
                    "rotation": [float(np.cos(half)), 0.0, 0.0, float(np.sin(half))],
                    "prev": self._link(before, i),
                    "next": self._link(after, i),
                    "num_lidar_pts": int(points[n][i]),
                    "num_radar_pts": 0,
                })  # fmt: skip

    def _points_in(self, frame: int, centers: Array, sizes: Array) -> Array:
        """Points of a sweep in each box (N,)."""
        pose = self.scene.ego2world[frame] @ lidar2ego()
        points = self.scans[frame].points[:, :3].astype(float) @ pose[:3, :3].T + pose[:3, 3]
        boxes = np.concatenate([centers, sizes, self.scene.objects.yaws[frame][:, None]], 1)
        return inside(torch.from_numpy(points), torch.from_numpy(boxes)).sum(1).numpy()


def _neighbors(row: list[int]) -> list[tuple[int | None, int, int | None]]:
    """Every entry between the one before and the one after, None at the ends."""
    return list(zip([None, *row[:-1]], row, [*row[1:], None]))


def _quaternion(pose: Array) -> list[float]:
    """(w, x, y, z) of a pose that turns about z alone."""
    half = np.arctan2(pose[1, 0], pose[0, 0]) / 2
    return [float(np.cos(half)), 0.0, 0.0, float(np.sin(half))]
