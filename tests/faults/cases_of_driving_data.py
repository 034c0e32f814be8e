# ruff: noqa: E501
"""Faults in driving data: Bench2Drive's and nuScenes' files."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.cases_of_data import Arrange, _all_files, _cut
from tests.faults.harness import Case


def _infos(change: Callable[[dict[str, Any]], Any]) -> Arrange:
    """Change the first frame of both lists."""

    def arrange(folder: Path) -> None:
        for name in ("train", "val"):
            file = folder / f"data/infos/b2d_infos_{name}.pkl"
            frames = pickle.loads(file.read_bytes())
            for frame in frames:
                change(frame)
            file.write_bytes(pickle.dumps(frames))

    return arrange


def _box(column: int, value: float) -> Arrange:
    def change(frame: dict[str, Any]) -> None:
        frame["gt_boxes"] = np.array(frame["gt_boxes"], dtype=np.float64)
        frame["gt_boxes"][:, column] = value

    return _infos(change)


def _no_image(file: Path) -> None:
    file.write_bytes(b"hello")


_INFOS = "data/infos/b2d_infos_*.pkl"
_OF_BENCH2DRIVE: dict[str, tuple[str, Arrange]] = {
    "infos missing": (r"b2d_infos_\w+\.pkl", _all_files(_INFOS, Path.unlink)),
    "infos cut short": (r"b2d_infos_\w+\.pkl", _all_files(_INFOS, _cut)),
    "infos that are text": (r"b2d_infos_\w+\.pkl", _all_files(_INFOS, _no_image)),
    "map cut short": (r"b2d_map_infos\.pkl", _all_files("data/infos/b2d_map_infos.pkl", _cut)),
    "images missing": (r"\.jpg", _all_files("data/**/*.jpg", Path.unlink)),
    "images cut short": (r"\.jpg", _all_files("data/**/*.jpg", _cut)),
    "images that are text": (r"\.jpg", _all_files("data/**/*.jpg", _no_image)),
    "frames without boxes": (r"gt_boxes", _infos(lambda frame: frame.pop("gt_boxes"))),
    "frames without sensors": (r"sensors", _infos(lambda frame: frame.pop("sensors"))),
    "frames without names": (r"gt_names", _infos(lambda frame: frame.pop("gt_names"))),
    "boxes of nan": (r"gt_boxes.*(nan|finite)|(nan|finite).*box", _box(0, np.nan)),
    "boxes of negative size": (r"gt_boxes.*(negative|size|above 0)", _box(3, -2.0)),
    "boxes of seven numbers": (r"gt_boxes", _infos(lambda frame: frame.update(gt_boxes=frame["gt_boxes"][:, :7]))),
    "fewer names than boxes": (
        r"gt_names|gt_boxes",
        _infos(lambda frame: frame.update(gt_names=frame["gt_names"][:-1])),
    ),
}


def _table(name: str, change: Callable[[Any], Any]) -> Arrange:
    def arrange(folder: Path) -> None:
        file = folder / f"data/v1.0-mini/{name}.json"
        rows = json.loads(file.read_text())
        change(rows)
        file.write_text(json.dumps(rows))

    return arrange


def _every(name: str, change: Callable[[dict[str, Any]], Any]) -> Arrange:
    return _table(name, lambda rows: [change(row) for row in rows])


def _odd_bytes(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def _fill(value: float) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        points = np.frombuffer(file.read_bytes(), np.float32).reshape(-1, 5).copy()
        points[:, 3] = value
        file.write_bytes(points.tobytes())

    return change


_SWEEPS = "data/samples/LIDAR_TOP/*.bin"
_TABLES = "data/v1.0-mini"
_OF_NUSCENES: dict[str, tuple[str, Arrange]] = {
    "a table missing": (r"sample_annotation\.json", _all_files(f"{_TABLES}/sample_annotation.json", Path.unlink)),
    "a table cut short": (r"sample_data\.json", _all_files(f"{_TABLES}/sample_data.json", _cut)),
    "a table that is no list": (r"sample\.json", _all_files(f"{_TABLES}/sample.json", lambda f: f.write_text("{}"))),
    "poses without translation": (r"ego_pose\.json.*translation", _every("ego_pose", lambda row: row.pop("translation"))),
    "annotations without size": (r"sample_annotation.*size", _every("sample_annotation", lambda row: row.pop("size"))),
    "samples of no scene": (r"scene", _every("sample", lambda row: row.update(scene_token="nothing"))),
    "annotations of no instance": (
        r"sample_annotation\.json names 'nothing', which is in no table",
        _every("sample_annotation", lambda row: row.update(instance_token="nothing")),
    ),
    "boxes of nan": (r"sample_annotation.*(nan|finite)", _every("sample_annotation", lambda row: row.update(translation=[float("nan")] * 3))),
    "boxes of negative size": (r"sample_annotation.*size", _every("sample_annotation", lambda row: row.update(size=[-1, 2, 2]))),
    "boxes of no rotation": (r"sample_annotation.*rotation", _every("sample_annotation", lambda row: row.update(rotation=[0, 0, 0, 0]))),
    "point clouds missing": (r"\.pcd\.bin", _all_files(_SWEEPS, Path.unlink)),
    "point clouds cut short": (r"\.pcd\.bin", _all_files(_SWEEPS, _odd_bytes)),
    "point clouds of nan": (r"\.pcd\.bin.*(nan|finite)", _all_files(_SWEEPS, _fill(np.nan))),
    "no list of scenes": (r"world_train", _table("splits", lambda splits: splits.clear())),
}  # fmt: skip

_TASK = "task=train_teacher export=none callbacks=[checkpoints]"
CASES = {
    f"Bench2Drive: {name}": Case("orion", _TASK, message, change, copy=True)
    for name, (message, change) in _OF_BENCH2DRIVE.items()
}
CASES |= {
    f"nuScenes: {name}": Case("bevfusion", f"{_TASK} data.unlabeled=null", message, change, copy=True)
    for name, (message, change) in _OF_NUSCENES.items()
}
