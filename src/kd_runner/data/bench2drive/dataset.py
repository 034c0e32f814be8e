"""Bench2Drive as Bench2DriveZoo prepares it: six pictures, boxes and map lines of a frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from kd_runner.data import restricted_pickle
from kd_runner.data.bench2drive.camera_pipeline import CameraPipeline
from kd_runner.errors import ConfigError, nearest
from kd_runner.geometry.boxes3d import from_bench2drive

Array = NDArray[Any]

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
CLASSES = ("car", "van", "truck", "bicycle", "traffic_sign", "traffic_cone", "traffic_light", "pedestrian", "others")
LINE_CLASSES = ("Broken", "Solid", "SolidSolid", "Center", "TrafficLight", "StopSign")

# CARLA types by class, as ORION's configuration maps them; `_by_prefix` holds the two families of many members.
_TYPES = {
    "bicycle": "vehicle.bh.crossbike vehicle.diamondback.century vehicle.gazelle.omafiets",
    "car": "vehicle.audi.etron vehicle.audi.tt vehicle.chevrolet.impala vehicle.dodge.charger_2020 "
    "vehicle.dodge.charger_police vehicle.dodge.charger_police_2020 vehicle.ford.crown vehicle.ford.mustang "
    "vehicle.lincoln.mkz_2017 vehicle.lincoln.mkz_2020 vehicle.mercedes.coupe_2020 vehicle.mini.cooper_s_2021 "
    "vehicle.nissan.patrol_2021 vehicle.tesla.model3",
    "van": "vehicle.ford.ambulance",
    "truck": "vehicle.carlamotors.firetruck",
    "traffic_sign": "traffic.stop traffic.yield",
    "traffic_light": "traffic.traffic_light",
    "traffic_cone": "static.prop.constructioncone static.prop.trafficwarning static.prop.warningaccident "
    "static.prop.warningconstruction",
    "others": "static.prop.dirtdebris01 static.prop.dirtdebris02",
}
_CLASS_OF = {name: kind for kind, names in _TYPES.items() for name in names.split()}
_BY_PREFIX = {"walker.pedestrian.": "pedestrian", "traffic.speed_limit.": "traffic_sign"}


def class_of(type_id: str) -> int:
    """Number in CLASSES of a CARLA type, or of a class name itself; -1 for types that are not detected."""
    parked = "/ParkedVehicles/" in type_id  # a path to a mesh; the Volkswagen T2 is the only van among them
    name = ("van" if "VolkswagenT2" in type_id else "car") if parked else _CLASS_OF.get(type_id, type_id)
    name = next((kind for prefix, kind in _BY_PREFIX.items() if name.startswith(prefix)), name)
    return CLASSES.index(name) if name in CLASSES else -1


class TownMap:
    """Lines and volumes of a town; finds those near the car.

    Args:
        content: one town of `b2d_map_infos.pkl`.
    """

    def __init__(self, content: dict[str, list[Any]]):
        known = {name: number for number, name in enumerate(LINE_CLASSES)}
        kinds = [known.get(kind, -1) for kind in content["lane_types"]]
        chosen = [i for i, kind in enumerate(kinds) if kind >= 0 and len(content["lane_sample_points"][i])]
        self.lines = [np.asarray(content["lane_points"][i], float) for i in chosen]
        self.kinds = [kinds[i] for i in chosen]
        samples = [np.asarray(content["lane_sample_points"][i], float)[:, :2] for i in chosen]
        self.samples = np.concatenate(samples) if samples else np.zeros((0, 2))
        self.starts = np.cumsum([0, *map(len, samples[:-1])]) if samples else np.zeros(0, int)
        volumes = zip(content["trigger_volumes_points"], content["trigger_volumes_types"])
        self.volumes = [(np.asarray(p, float), known[kind]) for p, kind in volumes if kind in known]

    def near(self, world2lidar: Array, range_m: float, num_points: int) -> tuple[Array, Array]:
        """Lines (n, num_points, 2) in meters in the LiDAR frame, and their classes (n,).

        As upstream: lines with a sample point within 50 m, their points within `range_m` in x and y if there are at
        least two, spread evenly; volumes that lie within as closed polygons.
        """
        found, kinds = [], []
        if len(self.lines):
            place = np.linalg.inv(world2lidar)[:2, 3]
            distance = np.minimum.reduceat(np.hypot(*(self.samples - place).T), self.starts)
            for number in np.flatnonzero(distance < 50.0):
                points = _in_lidar(self.lines[number], world2lidar)
                points = points[(np.abs(points) < range_m).all(1)]
                if len(points) > 1:
                    found.append(spread(points, num_points))
                    kinds.append(self.kinds[number])
        for corners, kind in self.volumes:
            points = _in_lidar(corners, world2lidar)
            if (np.abs(points) < range_m).all():
                found.append(spread(np.concatenate([points, points[:1]]), num_points))
                kinds.append(kind)
        return np.array(found).reshape(-1, num_points, 2), np.array(kinds, np.int64)


def _in_lidar(points: Array, world2lidar: Array) -> Array:
    if points.shape[1] == 2:
        points = np.concatenate([points, np.zeros((len(points), 1))], 1)
    return points[:, :3] @ world2lidar[:2, :3].T + world2lidar[:2, 3]


def spread(points: Array, num_points: int) -> Array:
    """`num_points` points at even distances along a polyline (n, 2), both ends included."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = np.linspace(0.0, length[-1], num_points)
    return np.stack([np.interp(at, length, points[:, axis]) for axis in (0, 1)], 1)


class Bench2Drive(Dataset[dict[str, Tensor]]):
    """Frames of one list, in the order of its pickle.

    A sample, all in the LiDAR frame (x right, y forward, z up; m, rad, m/s); rows beyond the mask are padding, because
    `default_collate` stacks tensors of one size:
    `images` (N, 3, H, W); `lidar2img`, `intrinsics` (N, 4, 4) to pixels of those images;
    `gt_boxes` (max_boxes, 9) as in `geometry.boxes3d`, yaw in [-pi, pi); `gt_labels` (max_boxes,) in CLASSES, -1 for
    padding; `gt_mask` (max_boxes,) bool;
    `line_points` (max_lines, num_points, 2), `line_labels` (max_lines,) in LINE_CLASSES, `line_mask` (max_lines,);
    `ego_pose` (4, 4) float64, LiDAR frame to world; `timestamp` float64 in s; `scene` the number of the clip;
    `labeled` whether boxes and lines are known.

    Boxes with num_points 0 and classes that are not detected are left out. The published key names are read, so that
    Bench2DriveZoo's own infos load unchanged. Of more boxes or lines than fit, the nearest are kept.

    Args:
        root: folder that holds `bench2drive/` and `infos/`, or the folder bench2drive itself with `infos/` in or
            beside it.
        split: `train` or `val`, for `b2d_infos_<split>.pkl`.
        pipeline: pictures to network input.
        range_m: boxes and points of lines beyond it in x or y are left out.
        num_points: points of a line.
        max_boxes, max_lines: rows of the padded tensors.
        cameras: of CAMERAS, in the order of the output.
        first, last: frames of the list, counted from 0, the last one not included; None for its end.
        labeled: give boxes and lines; without, a sample is as if it had none, and `labeled` says so.

    Raises:
        ConfigError: no such files, an unknown camera, or pickles that hold anything but plain data.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        pipeline: CameraPipeline,
        range_m: float = 51.2,
        num_points: int = 11,
        max_boxes: int = 128,
        max_lines: int = 128,
        cameras: Sequence[str] = CAMERAS,
        first: int = 0,
        last: int | None = None,
        labeled: bool = True,
    ):
        for name in cameras:
            if name not in CAMERAS:
                raise ConfigError(f"data.cameras: there is no {name!r}.{nearest(name, CAMERAS)}")
        self.cameras, self.labeled = tuple(cameras), labeled
        self.folder, infos = _folders(Path(root))
        path = infos / f"b2d_infos_{split}.pkl"
        if not path.is_file():
            known = [p.stem.removeprefix("b2d_infos_") for p in infos.glob("b2d_infos_*.pkl")]
            raise ConfigError(f"data: there is no {path}.{nearest(split, known)}")
        self.infos: list[dict[str, Any]] = restricted_pickle.load(path)
        count, self.infos = len(self.infos), self.infos[first:last]
        if not self.infos:
            raise ConfigError(f"data: none of the {count} frames of {path} is from first={first} to last={last}")
        towns = {info["town_name"] for info in self.infos}
        content = restricted_pickle.load(infos / "b2d_map_infos.pkl")
        if missing := sorted(towns - set(content)):
            raise ConfigError(f"data.root: {infos / 'b2d_map_infos.pkl'} lacks the towns {', '.join(missing)}")
        self.maps = {town: TownMap(content[town]) for town in towns}
        self.scenes = {folder: n for n, folder in enumerate(dict.fromkeys(info["folder"] for info in self.infos))}
        self.pipeline, self.range_m, self.num_points = pipeline, range_m, num_points
        self.max_boxes, self.max_lines = max_boxes, max_lines

    def __len__(self) -> int:
        return len(self.infos)

    def token(self, index: int) -> str:
        """Bench2Drive's name of a frame, `<folder>_<frame>`."""
        return f"{self.infos[index]['folder']}_{self.infos[index]['frame_idx']}"

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        info = self.infos[index]
        sensors = info["sensors"]
        pictures = [Image.open(self.folder / sensors[name]["data_path"]).convert("RGB") for name in self.cameras]
        intrinsics = np.stack([np.asarray(sensors[name]["intrinsic"], float)[:3, :3] for name in self.cameras])
        images, matrices = self.pipeline(pictures, intrinsics)
        lidar2ego, world2lidar = sensors["LIDAR_TOP"]["lidar2ego"], sensors["LIDAR_TOP"]["world2lidar"]
        lidar2cam = np.stack([np.linalg.inv(sensors[name]["cam2ego"]) @ lidar2ego for name in self.cameras])
        points, kinds = self.maps[info["town_name"]].near(world2lidar, self.range_m, self.num_points)
        boxes, labels = self._boxes(info)
        if not self.labeled:
            points, kinds, boxes, labels = points[:0], kinds[:0], boxes[:0], labels[:0]
        return {
            "images": images,
            "lidar2img": (matrices @ torch.from_numpy(lidar2cam)).float(),
            "intrinsics": matrices.float(),
            **_padded("gt", "boxes", boxes, labels, np.hypot(boxes[:, 0], boxes[:, 1]), self.max_boxes),
            **_padded("line", "points", points, kinds, np.hypot(*points.T).min(0), self.max_lines),
            "ego_pose": torch.from_numpy(np.linalg.inv(world2lidar)),
            "timestamp": torch.tensor(info["frame_idx"] / 10, dtype=torch.float64),
            "scene": torch.tensor(self.scenes[info["folder"]]),
            "labeled": torch.tensor(self.labeled),
        }

    def _boxes(self, info: dict[str, Any]) -> tuple[Array, Array]:
        boxes = from_bench2drive(torch.from_numpy(np.array(info["gt_boxes"], float).reshape(-1, 9))).numpy()
        labels = np.array([class_of(str(name)) for name in info["gt_names"]], np.int64)
        keep = (labels >= 0) & (np.asarray(info["num_points"]) != 0) & (np.abs(boxes[:, :2]) < self.range_m).all(1)
        return boxes[keep], labels[keep]


def _padded(kind: str, what: str, rows: Array, labels: Array, distance: Array, size: int) -> dict[str, Tensor]:
    chosen = np.sort(np.argsort(distance, kind="stable")[:size])
    values = torch.zeros((size, *rows.shape[1:]))
    values[: len(chosen)] = torch.from_numpy(rows[chosen]).float()
    numbers = torch.full((size,), -1)
    numbers[: len(chosen)] = torch.from_numpy(labels[chosen])
    return {f"{kind}_{what}": values, f"{kind}_labels": numbers, f"{kind}_mask": numbers >= 0}


def _folders(root: Path) -> tuple[Path, Path]:
    """(folder that data_path is relative to, folder of the infos)."""
    for folder, infos in (
        (root / "bench2drive", root / "infos"),
        (root, root / "infos"),
        (root, root.parent / "infos"),
    ):
        if (folder / "v1").is_dir() and infos.is_dir():
            return folder, infos
    raise ConfigError(f"data.root: {root} holds no bench2drive/v1 with infos/ beside it")
