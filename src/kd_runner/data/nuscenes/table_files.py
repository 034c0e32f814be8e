"""Reading and checking the rows of nuScenes' JSON tables."""

import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]

# Tables that are read, and the columns that their rows must have.
_COLUMNS = {
    "scene": ("token", "name"),
    "sample": ("token", "timestamp", "scene_token"),
    "sensor": ("token", "channel"),
    "calibrated_sensor": ("token", "sensor_token", "translation", "rotation"),
    "sample_data": (
        *("token", "sample_token", "ego_pose_token", "calibrated_sensor_token"),
        *("timestamp", "is_key_frame", "filename", "prev"),
    ),
    "ego_pose": ("token", "translation", "rotation"),
    "category": ("token", "name"),
    "instance": ("token", "category_token"),
    "attribute": ("token", "name"),
    "sample_annotation": (
        *("token", "sample_token", "instance_token", "attribute_tokens", "translation", "size", "rotation"),
        *("prev", "next", "num_lidar_pts", "num_radar_pts"),
    ),
}


def load(folder: Path, name: str) -> dict[str, Row]:
    """Rows of a table by token, in its order.

    Args:
        folder: of the tables.
        name: of the table.

    Returns:
        Token to row.

    Raises:
        ValueError: no such file, no list of rows, a column that is missing, a token that stands twice.
    """
    path = folder / f"{name}.json"
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path} holds a {type(rows).__name__}: expected a list of rows")
    table: dict[str, Row] = {}
    for number, row in enumerate(rows):
        missing = [column for column in _COLUMNS[name] if not isinstance(row, dict) or column not in row]
        if missing:
            raise ValueError(f"row {number} of {path} has no {', '.join(map(repr, missing))}")
        if not isinstance(row["token"], str):
            raise ValueError(f"row {number} of {path}: token={row['token']!r}: expected text")
        if row["token"] in table:
            raise ValueError(f"{path} lists the token {row['token']} twice")
        table[row["token"]] = row
    return table


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        ValueError: no such file, or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): expected a table of nuScenes") from error
    except (ValueError, RecursionError) as error:  # of json, or bytes that are no UTF-8
        raise ValueError(f"{path} is no JSON, or cut short ({error})") from error


def check_reference(row: Row, column: str, known: Container[str], path: Path, table: str) -> None:
    """Check that a row names a row that is there.

    Args:
        row: it has a token.
        column: of the name.
        known: tokens of the other table.
        path: file of the row's table.
        table: name of the other one.

    Raises:
        ValueError: the row names a row that is not there.
    """
    if not isinstance(row[column], str) or row[column] not in known:
        raise ValueError(f"row {row['token']} of {path}: {column}={row[column]!r} is not in {table}.json")


def check_time(row: Row, path: Path) -> None:
    """Check the time of a row.

    Args:
        row: it has a token and a timestamp.
        path: file of its table.

    Raises:
        ValueError: the time is no whole number of microseconds.
    """
    time = row["timestamp"]
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < 2**53 or time != int(time):
        raise ValueError(f"row {row['token']} of {path}: timestamp={time!r}: expected microseconds, a whole number")


def check_box(row: Row, path: Path) -> None:
    """Check the box of an annotation.

    Args:
        row: of the annotation.
        path: file of its table.

    Raises:
        ValueError: place, size or rotation are no numbers, the size is not above 0, or the points are not counted.
    """
    subject = f"the annotation {row['token']} of {path}, sample {row['sample_token']}"
    for column, count in (("translation", 3), ("size", 3), ("rotation", 4)):
        if not _are_numbers(row[column], count):
            raise ValueError(f"{subject}: {column}={row[column]}: expected {count} finite numbers")
    if min(row["size"]) <= 0 or not any(row["rotation"]):
        numbers = f"size={row['size']}, rotation={row['rotation']}"
        raise ValueError(f"{subject}: {numbers}: expected sizes above 0 and a rotation")
    for column in ("num_lidar_pts", "num_radar_pts"):
        if isinstance(row[column], bool) or not isinstance(row[column], int) or row[column] < 0:
            raise ValueError(f"{subject}: {column}={row[column]!r}: expected a whole number from 0")


def check_pose(row: Row, path: Path) -> None:
    """Check the pose of a sensor or of the car.

    Args:
        row: it has a token, a translation and a rotation.
        path: file of its table.

    Raises:
        ValueError: place or rotation are no numbers, or there is no rotation.
    """
    translation, rotation = row["translation"], row["rotation"]
    if not _are_numbers(translation, 3) or not _are_numbers(rotation, 4) or not any(rotation):
        numbers = f"translation={translation}, rotation={rotation}: expected three and four finite numbers"
        raise ValueError(f"row {row['token']} of {path}: {numbers}, not all four 0")


def _are_numbers(values: Sequence[Any], count: int) -> bool:
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        return False
    return array.shape == (count,) and array.dtype.kind in "if" and bool(np.isfinite(array).all())
