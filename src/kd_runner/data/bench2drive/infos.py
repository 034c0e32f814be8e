"""Info files of Bench2DriveZoo: folders, loading, and checks of every frame."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd_runner.data import restricted_pickle
from kd_runner.data.bench2drive.town_map import TownMap
from kd_runner.errors import nearest

Info = dict[str, Any]

_KEYS = ("folder", "town_name", "frame_idx", "sensors", "gt_boxes", "gt_names", "num_points")
_CAMERA_MATRICES = {"cam2ego": ((4, 4),), "intrinsic": ((3, 3), (4, 4))}
_LIDAR_MATRICES = {"lidar2ego": ((4, 4),), "world2lidar": ((4, 4),)}


def find_folders(root: Path) -> tuple[Path, Path]:
    """Find the data below a folder.

    Args:
        root: as for `Bench2Drive`.

    Returns:
        Folder that image paths are relative to, and folder of the info files.

    Raises:
        ValueError: `root` holds no Bench2Drive.
    """
    for folder, infos in (
        (root / "bench2drive", root / "infos"),
        (root, root / "infos"),
        (root, root.parent / "infos"),
    ):
        if (folder / "v1").is_dir() and infos.is_dir():
            return folder, infos
    raise ValueError(f"root: {root} holds no bench2drive/v1 with infos/ beside it")


def load_infos(folder: Path, split: str, cameras: Sequence[str], first: int = 0, last: int | None = None) -> list[Info]:
    """Frames `first` to `last` (not included) of `b2d_infos_<split>.pkl`, checked.

    Args:
        folder: folder of the info files.
        split: `train` or `val`.
        cameras: cameras that every frame needs.
        first: first frame.
        last: frame after the last one, None for the end of the list.

    Returns:
        The entries.

    Raises:
        ValueError: the file, the frame and what was expected.
    """
    path = folder / f"b2d_infos_{split}.pkl"
    if not path.is_file():
        known = [p.stem.removeprefix("b2d_infos_") for p in folder.glob("b2d_infos_*.pkl")]
        raise ValueError(f"there is no {path}.{nearest(split, known)}")
    infos = restricted_pickle.load(path)
    if not isinstance(infos, list):
        raise ValueError(f"{path}: a list of frames is expected, not a {type(infos).__name__}")
    count, infos = len(infos), infos[first:last]
    if not infos:
        raise ValueError(f"none of the {count} frames of {path} is from first={first} to last={last}")
    numbers: dict[str, int] = {}
    for number, info in enumerate(infos, first):
        try:
            check_info(info, cameras)
        except ValueError as error:
            raise ValueError(f"{path}, frame {number}{_token_text(info)}: {error}") from None
        if (token := frame_token(info)) in numbers:
            raise ValueError(f"{path}: {token} is listed twice, as frames {numbers[token]} and {number}")
        numbers[token] = number
    return infos


def frame_token(info: Info) -> str:
    """Bench2Drive's name of a frame.

    Args:
        info: entry of the frame.

    Returns:
        `<folder>_<frame>`.
    """
    return f"{info['folder']}_{info['frame_idx']}"


def check_info(info: Any, cameras: Sequence[str]) -> None:
    """Check keys, shapes and values of one frame.

    Args:
        info: entry of the frame.
        cameras: cameras that it needs.

    Raises:
        ValueError: what was expected.
    """
    if not isinstance(info, dict):
        raise ValueError(f"a dict is expected, not a {type(info).__name__}")
    _require_keys(info, _KEYS, "")
    number = info["frame_idx"]
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
        raise ValueError(f"frame_idx: a whole number from 0 is expected, not {number!r}")
    for key in ("folder", "town_name"):
        if not isinstance(info[key], str):
            raise ValueError(f"{key}: text is expected, not {info[key]!r}")
    if not isinstance(info["sensors"], dict):
        raise ValueError(f"sensors: a dict is expected, not a {type(info['sensors']).__name__}")
    _require_keys(info["sensors"], (*cameras, "LIDAR_TOP"), "sensors.")
    for name in cameras:
        _require_keys(info["sensors"][name], (*_CAMERA_MATRICES, "data_path"), f"sensors.{name}.")
        sensor = info["sensors"][name]
        _check_matrices(sensor, _CAMERA_MATRICES, f"sensors.{name}.")
        focal = np.diag(np.asarray(sensor["intrinsic"], float))[:2]
        if (focal <= 0).any():
            raise ValueError(f"sensors.{name}.intrinsic: focal lengths above 0 are expected, got {focal.tolist()}")
        if not isinstance(sensor["data_path"], str) or not sensor["data_path"]:
            raise ValueError(f"sensors.{name}.data_path: the path of a file is expected, not {sensor['data_path']!r}")
    _require_keys(info["sensors"]["LIDAR_TOP"], tuple(_LIDAR_MATRICES), "sensors.LIDAR_TOP.")
    _check_matrices(info["sensors"]["LIDAR_TOP"], _LIDAR_MATRICES, "sensors.LIDAR_TOP.")
    _check_boxes(info)


def _check_boxes(info: Info) -> None:
    boxes = _as_array(info["gt_boxes"], "gt_boxes")
    names = np.asarray(info["gt_names"])
    if names.ndim != 1 or not all(isinstance(name, str) for name in names.tolist()):
        raise ValueError(f"gt_names: a list of text is expected, not {str(info['gt_names'])[:60]}")
    count = len(names)
    if boxes.shape != (count, 9) and boxes.size + count > 0:
        raise ValueError(f"gt_boxes: the shape {(count, 9)} is expected for {count} gt_names, got {boxes.shape}")
    if np.shape(info["num_points"]) != (count,):
        raise ValueError(f"num_points: {count} numbers are expected as of gt_names, got {np.shape(info['num_points'])}")
    points = _as_array(info["num_points"], "num_points")
    if not (points >= -1).all():  # -1: not counted
        raise ValueError(f"num_points: numbers from 0 are expected, or -1 where unknown, got {points.min()}")
    if not count:
        return
    for problem, rows in (
        ("a number is not finite", ~np.isfinite(boxes).all(1)),
        ("a size is negative", (boxes[:, 3:6] < 0).any(1)),
    ):
        if rows.any():
            i = int(rows.argmax())
            raise ValueError(f"gt_boxes: {problem} in box {i} ({info['gt_names'][i]}): {boxes[i].tolist()}")


def _require_keys(content: Any, keys: Sequence[str], prefix: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{prefix.rstrip('.')}: a dict is expected, not a {type(content).__name__}")
    for key in keys:
        if key not in content:
            raise ValueError(f"the key {prefix}{key} is missing")


def _check_matrices(content: Info, shapes: Mapping[str, Sequence[tuple[int, int]]], prefix: str) -> None:
    for key, allowed in shapes.items():
        matrix = _as_array(content[key], f"{prefix}{key}")
        if matrix.shape not in allowed:
            expected = " or ".join(str(shape) for shape in allowed)
            raise ValueError(f"{prefix}{key}: the shape {expected} is expected, got {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise ValueError(f"{prefix}{key}: a number is not finite")
        if key != "intrinsic" and not _is_rigid(matrix):
            raise ValueError(f"{prefix}{key}: a rotation and a translation are expected, got {matrix.tolist()}")


def _is_rigid(matrix: np.ndarray) -> bool:
    rotation = matrix[:3, :3]
    return np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2) and np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-3)


def _as_array(value: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":  # lists that hold numbers of several types
            array = array.astype(float)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: an array of numbers is expected") from None
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: an array of numbers is expected, not of {array.dtype}")
    return array.astype(float)


def _token_text(info: Any) -> str:
    return f" ({frame_token(info)})" if isinstance(info, dict) and {"folder", "frame_idx"} <= info.keys() else ""


def load_maps(folder: Path, towns: set[str]) -> dict[str, TownMap]:
    """Maps of the towns from `b2d_map_infos.pkl`.

    Args:
        folder: folder of the info files.
        towns: names of towns.

    Returns:
        Town to map.

    Raises:
        ValueError: the file, the town and what was expected.
    """
    path = folder / "b2d_map_infos.pkl"
    content = restricted_pickle.load(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a dict of towns is expected, not a {type(content).__name__}")
    if missing := sorted(towns - set(content)):
        raise ValueError(f"{path} lacks the towns {', '.join(missing)}")
    maps = {}
    for town in sorted(towns):
        try:
            maps[town] = TownMap(content[town])
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"{path}, town {town}: {error}") from None
    return maps
