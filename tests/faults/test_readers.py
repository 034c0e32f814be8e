# ruff: noqa: E501
"""Values in data files that are no data: each reader names the file, the entry and what it expects, in one line.

Unlike the cases of `test_faults.py` these run no command: the data sets are made and read in this process.
"""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from kd_runner.config import build
from kd_runner.config.compose import compose
from kd_runner.errors import ConfigError
from tests.faults.conftest import WORDS

NAN = float("nan")
Change = Callable[[Any], Any]
Plant = Callable[[Path], Any]


def _json(pattern: str, change: Change) -> Plant:
    def plant(root: Path) -> None:
        for file in root.glob(pattern):
            content = json.loads(file.read_text())
            change(content)
            file.write_text(json.dumps(content))

    return plant


def _annotation(**values: Any) -> Plant:
    return _json("annotations/*.json", lambda content: content["annotations"][0].update(values))


def _image(**values: Any) -> Plant:
    return _json("annotations/*.json", lambda content: content["images"][0].update(values))


def _runs(counts: list[int]) -> Plant:
    def change(content: Any) -> None:
        entry = content["annotations"][0]
        image = next(i for i in content["images"] if i["id"] == entry["image_id"])
        entry["segmentation"] = {"size": [image["height"], image["width"]], "counts": counts}

    return _json("annotations/*.json", change)


_COCO: dict[str, tuple[str, Plant]] = {
    "an id that is a list": (r"images\[0\] has the id \[1\]", _image(id=[1])),
    "an id that is text": (r"annotations\[0\] has the id 'a'", _annotation(id="a")),
    "a negative id": (r"annotations\[0\] has the id -1", _annotation(id=-1)),
    "a name that is a number": (r"images\[0\] has the file_name 3", _image(file_name=3)),
    "a height that is a fraction": (r"images\[0\].* has a size of 47\.5 x", _image(height=47.5)),
    "a crowd that is text": (r"annotations\[0\] has the iscrowd 'no'", _annotation(iscrowd="no")),
    "a polygon far away": (r"polygon .*in pixels", _annotation(segmentation=[[0, 0, 1e30, 0, 9, 9]])),
    "negative runs": (r"invalid segmentation \(its runs cover", _runs([-9, 9])),
    "runs that end early": (r"invalid segmentation \(its runs cover 3 of", _runs([3])),
}


def _frames(change: Change) -> Plant:
    def plant(root: Path) -> None:
        for file in root.glob("infos/b2d_infos_*.pkl"):
            frames = pickle.loads(file.read_bytes())
            for frame in frames:
                change(frame)
            file.write_bytes(pickle.dumps(frames))

    return plant


def _sensor(sensor: str, key: str, value: Any) -> Plant:
    return _frames(lambda frame: frame["sensors"][sensor].update({key: value}))


def _towns(**values: Any) -> Plant:
    def plant(root: Path) -> None:
        file = root / "infos/b2d_map_infos.pkl"
        towns = pickle.loads(file.read_bytes())
        for town in towns.values():
            for key, value in values.items():
                town[key] = [value] * len(town[key])
        file.write_bytes(pickle.dumps(towns))

    return plant


def _small_images(root: Path) -> None:
    for file in root.glob("**/*.jpg"):
        Image.new("RGB", (33, 17)).save(file)


def _points_of(value: Any) -> Plant:
    return _frames(lambda frame: frame.update(num_points=np.full(len(frame["gt_names"]), value)))


_BENCH2DRIVE: dict[str, tuple[str, Plant]] = {
    "a pose of zeros": (r"CAM_FRONT\.cam2ego: a rotation", _sensor("CAM_FRONT", "cam2ego", np.zeros((4, 4)))),
    "a pose that scales": (r"LIDAR_TOP\.lidar2ego: a rotation", _sensor("LIDAR_TOP", "lidar2ego", 9 * np.eye(4))),
    "a pose of complex numbers": (r"world2lidar: an array of numbers", _sensor("LIDAR_TOP", "world2lidar", 1j * np.eye(4))),
    "no focal length": (r"intrinsic: focal lengths above 0", _sensor("CAM_FRONT", "intrinsic", np.zeros((3, 3)))),
    "a path that is a number": (r"data_path: the path of a file", _sensor("CAM_FRONT", "data_path", 3)),
    "images of another size": (r"\.jpg has 33 x 17 pixels, but the optical axis", _small_images),
    "names that are numbers": (r"gt_names: a list of text", _frames(lambda f: f.update(gt_names=np.arange(len(f["gt_names"]))))),
    "points that are nan": (r"num_points: numbers from 0", _points_of(NAN)),
    "points that are text": (r"num_points: an array of numbers", _points_of("a")),
    "a negative frame": (r"frame_idx: a whole number from 0", _frames(lambda frame: frame.update(frame_idx=-5))),
    "lanes of nan": (r"b2d_map_infos\.pkl, town .*lane_points\[\d+\]", _towns(lane_points=np.full((9, 3), NAN))),
    "lanes of one column": (r"town .*lane_sample_points\[\d+\]", _towns(lane_sample_points=np.zeros((9, 1)))),
    "lane types of numbers": (r"town .*lane_types: text is expected, not 3", _towns(lane_types=3)),
}  # fmt: skip


def _rows(table: str, **values: Any) -> Plant:
    return _json(f"v1.0-mini/{table}.json", lambda rows: [row.update(values) for row in rows])


def _points(change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    def plant(root: Path) -> None:
        for file in root.glob("samples/LIDAR_TOP/*.bin"):
            change(np.fromfile(file, np.float32).reshape(-1, 5)).tofile(file)

    return plant


def _moved(column: int, value: float) -> Plant:
    return _points(lambda points: points + value * np.eye(5, dtype=np.float32)[column])


_NUSCENES: dict[str, tuple[str, Plant]] = {
    "samples of no scene": (r"sample\.json: scene_token='no' is not in scene", _rows("sample", scene_token="no")),
    "sweeps of no sample": (r"sample_data\.json: sample_token='no'", _rows("sample_data", sample_token="no")),
    "sweeps of no sensor": (r"calibrated_sensor_token='no'", _rows("sample_data", calibrated_sensor_token="no")),
    "sweeps before nothing": (r"sample_data\.json: prev='no'", _rows("sample_data", prev="no")),
    "annotations of no sample": (r"sample_annotation\.json: sample_token='no'", _rows("sample_annotation", sample_token="no")),
    "annotations before nothing": (r"sample_annotation\.json: prev='no'", _rows("sample_annotation", prev="no")),
    "times of nan": (r"sample\.json: timestamp=nan", _rows("sample", timestamp=NAN)),
    "times of text": (r"sample_data\.json: timestamp='a'", _rows("sample_data", timestamp="a")),
    "a pose without rotation": (r"ego_pose\.json.*not all four 0", _rows("ego_pose", rotation=[0, 0, 0, 0])),
    "points of an annotation nan": (r"num_lidar_pts=nan", _rows("sample_annotation", num_lidar_pts=NAN)),
    "an unknown category": (r"category\.json has 'vehicle\.carr'\. Did you mean 'vehicle\.car'", _rows("category", name="vehicle.carr")),
    "a key frame that is text": (r"is_key_frame='no'", _rows("sample_data", is_key_frame="no")),
    "points of doubles": (r"\.bin: point \d+ is .*five float32", _points(lambda points: points.astype(np.float64))),
    "points of four columns": (r"\.bin: point \d+ is .*five float32", _points(lambda p: p[: len(p) // 5 * 5, :4].copy())),
    "points far away": (r"none of its \d+ points lies in point_range", _moved(0, 5000.0)),
    "a negative intensity": (r"\.bin: point 0 is .*an intensity from 0", _moved(3, -1000.0)),
}  # fmt: skip

CASES = {
    **{f"unet {name}": ("unet", *case) for name, case in _COCO.items()},
    **{f"orion {name}": ("orion", *case) for name, case in _BENCH2DRIVE.items()},
    **{f"bevfusion {name}": ("bevfusion", *case) for name, case in _NUSCENES.items()},
}


@pytest.fixture(scope="module")
def config_of() -> Callable[[str], DictConfig]:
    """The configuration of a system, composed when first asked for; its data to be set."""
    return cache(lambda system: compose([*WORDS[system], "data.root=unset"]))


@pytest.mark.parametrize(("system", "message", "plant"), CASES.values(), ids=CASES)
def test_a_fault_in_a_data_file_is_named(
    system: str, message: str, plant: Plant, data_of: Callable[[str], Path], config_of, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(data_of(system), tmp_path / "data"))
    plant(root)
    cfg = config_of(system).copy()
    cfg.data.root = str(root)
    with pytest.raises(ConfigError) as error:
        data = build.data(cfg)
        for part in (data.train, data.val):
            for index in range(len(part)):
                part[index]
    assert re.search(message, str(error.value)) and "\n" not in str(error.value)
