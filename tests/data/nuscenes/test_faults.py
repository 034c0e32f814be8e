"""Broken tables and files are refused, with the file, the row or the frame, and what was expected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_runner.data.nuscenes.dataset import NuScenesLidar

Rows = list[dict[str, Any]]


def read(root: Path, version: str = "v1.0-mini", split: str = "mini_val") -> NuScenesLidar:
    return NuScenesLidar(root, version, split, max_points=40, max_boxes=5)


def change(root: Path, table: str, edit: Callable[[Rows], object]) -> None:
    path = root / "v1.0-mini" / f"{table}.json"
    rows = json.loads(path.read_text())
    edit(rows)
    path.write_text(json.dumps(rows))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"instance\.json cannot be read \(No such file"),
        (b'[{"token": "car", "cat', r"instance\.json is no JSON, or cut short"),
        (b"\xff\xfe\x00", r"instance\.json is no JSON, or cut short"),
        (b"{}", r"instance\.json holds a dict: expected a list of rows"),
    ],
)
def test_a_table_that_cannot_be_read(tables: Path, content: bytes | None, message: str) -> None:
    path = tables / "v1.0-mini" / "instance.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tables)


@pytest.mark.parametrize(
    ("table", "edit", "message"),
    [
        ("sample_data", lambda rows: rows[1].pop("filename"), r"row 1 of .*sample_data\.json has no 'filename'"),
        ("sample", lambda rows: rows.append(rows[0]), r"sample\.json lists the token sample0 twice"),
        (
            "sample",
            lambda rows: rows.append({**rows[0], "token": "again"}),
            r"lists one frame twice, as sample0 and as again",
        ),
        (
            "sample_data",
            lambda rows: rows.append({**rows[0], "token": "again"}),
            r"sample sample0 has 2 key frames of LIDAR_TOP: expected one",
        ),
        ("ego_pose", lambda rows: rows.pop(0), r"row sweep0 of .*ego_pose_token='pose0' is not in ego_pose"),
        (
            "ego_pose",
            lambda rows: rows[2].update(translation=[0, float("nan"), 0]),
            r"row pose2 of .*ego_pose\.json: translation=\[0, nan, 0\].*finite",
        ),
        ("instance", lambda rows: rows.pop(0), r"annotation a of .* names 'car', which is in no table"),
        (
            "sample_annotation",
            lambda rows: rows[0].update(size=[2.0, -4.0, 1.5]),
            r"annotation a of .*, sample sample0: size=\[2\.0, -4\.0, 1\.5\].*above 0",
        ),
        (
            "sample_annotation",
            lambda rows: rows[1].update(translation=[1.0, float("nan"), 0.0]),
            r"annotation b of .*, sample sample1: translation=\[1\.0, nan, 0\.0\]: expected 3 finite numbers",
        ),
        ("sample_annotation", lambda rows: rows[1].update(rotation=[0, 0, 0, 0]), r"annotation b .* a rotation"),
    ],
)
def test_a_row_that_cannot_be_used(tables: Path, table: str, edit: Callable[[Rows], object], message: str) -> None:
    change(tables, table, edit)
    with pytest.raises(ValueError, match=message):
        read(tables)


def test_a_scene_listed_twice(tables: Path) -> None:
    (tables / "v1.0-mini" / "splits.json").write_text(json.dumps({"own": ["scene-0916", "scene-0916"]}))
    with pytest.raises(ValueError, match=r"splits\.json lists scenes twice in 'own': scene-0916"):
        read(tables, split="own")


def test_a_missing_file_of_points(tables: Path) -> None:
    (tables / "0.pcd.bin").unlink()
    dataset = read(tables)
    with pytest.raises(ValueError, match=r"0\.pcd\.bin cannot be read \(No such file.*LIDAR_TOP"):
        dataset[0]


@pytest.mark.parametrize("size", [0, 59])
def test_a_file_of_points_that_is_cut_short(tables: Path, size: int) -> None:
    path = tables / "0.pcd.bin"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"0\.pcd\.bin has {size} bytes: expected a multiple of 20"):
        read(tables)[0]


@pytest.mark.parametrize(("column", "value"), [(0, np.nan), (2, -np.inf), (3, np.nan), (3, np.inf)])
def test_points_that_are_no_numbers(tables: Path, column: int, value: float) -> None:
    """In a sweep before the key frame, too."""
    points = np.fromfile(tables / "1.pcd.bin", np.float32).reshape(-1, 5)
    points[2, column] = value
    points.tofile(tables / "1.pcd.bin")
    dataset = read(tables)
    dataset[0]
    with pytest.raises(ValueError, match=r"1\.pcd\.bin: point 2 is .*expected finite x, y, z and intensity"):
        dataset[1]


def test_the_version_is_the_only_thing_to_change_for_the_mini_set(tables: Path) -> None:
    assert [read(tables, split="val").token(i) for i in range(3)] == [read(tables).token(i) for i in range(3)]
    with pytest.raises(ValueError, match=r"holds no scene of the official split 'train'"):
        change(tables, "scene", lambda rows: rows.pop())
        read(tables, split="train")
