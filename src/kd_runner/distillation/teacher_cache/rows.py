"""Arrays on disk that fill up row by row, shared by processes that do not communicate."""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kd_runner.errors import ConfigError
from kd_runner.runtime.files import storage_error

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name to (numpy dtype, shape of a row)."""


def create(folder: Path, count: int, layout: Layout) -> None:
    """Create arrays of empty rows, one `<name>.npy` each; they take disk space as they fill.

    Args:
        folder: where.
        count: number of rows.
        layout: name to shape and type of a row.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (dtype, shape) in {**layout, "checksums": ("uint32", ())}.items():
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (count, *shape))
    except OSError as error:
        raise storage_error(folder, error) from error


def damaged(file: Path, what: object) -> ConfigError:
    """The error of a file that is not as `create` made it.

    Args:
        file: in the folder of a recorded teacher.
        what: is wrong with it.

    Returns:
        The error, to be raised.
    """
    return ConfigError(f"kd.teacher_cache: {file} is damaged ({what}). Delete its folder; it is made again")


def _mapped(file: Path) -> NDArray:
    try:
        return np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise damaged(file, error) from error


class Rows:
    """Rows of several arrays that are written together.

    `checksums.npy` holds the CRC-32 of every row's bytes, 0 where there is none. It is written after the row, and
    compared with the row when a process first reads it: a row torn by kill -9 or a power cut, or by two processes that
    wrote it at once, counts as missing. So nothing is locked while training.

    Args:
        folder: what `create` has made.
        layout: the same as there.
    """

    def __init__(self, folder: Path, layout: Layout):
        self.folder, self.names = folder, list(layout)
        self._arrays = {name: _mapped(folder / f"{name}.npy") for name in (*self.names, "checksums")}
        count = len(self._arrays["checksums"])
        for name, (dtype, shape) in {**layout, "checksums": ("uint32", ())}.items():
            array = self._arrays[name]
            if array.dtype != dtype or array.shape != (count, *shape):
                raise damaged(folder / f"{name}.npy", f"{array.dtype} {array.shape} for {dtype} {(count, *shape)}")
        # By pwrite: through the map, a full disk would kill the process instead of raising.
        self._files = {name: os.open(folder / f"{name}.npy", os.O_RDWR) for name in self._arrays}
        self._known = np.zeros(len(self._arrays["checksums"]), bool)

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)

    def missing(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows are not there, or not whole.

        Args:
            rows: numbers (n,).

        Returns:
            (n,) bool.
        """
        for row in rows[~self._known[rows]]:
            stored = int(self._arrays["checksums"][row])
            self._known[row] = stored != 0 and stored == _checksum(self._row(row))
        return ~self._known[rows]

    def write(self, row: int, values: Mapping[str, NDArray]) -> None:
        """Write a row of every array.

        Args:
            row: its number.
            values: name to value.
        """
        content = {name: np.ascontiguousarray(values[name], self._arrays[name].dtype) for name in self.names}
        try:
            for name, value in content.items():
                self._put(name, row, value)
            self._put("checksums", row, np.uint32(_checksum(content)))
        except OSError as error:
            raise ConfigError(f"cache: the teacher's outputs cannot be written to {self.folder}: {error}") from error

    def read(self, rows: NDArray[np.int64]) -> dict[str, NDArray]:
        """Read rows.

        Args:
            rows: numbers (n,).

        Returns:
            Name to copies, (n, *shape).
        """
        return {name: self._arrays[name][rows] for name in self.names}

    def _row(self, row: int) -> dict[str, NDArray]:
        return {name: self._arrays[name][row] for name in self.names}

    def _put(self, name: str, row: int, value: NDArray | np.uint32) -> None:
        array, data = self._arrays[name], value.tobytes()
        position = array.offset + row * len(data)  # type: ignore[attr-defined]
        while data:
            written = os.pwrite(self._files[name], data, position)
            data, position = data[written:], position + written


def _checksum(values: Mapping[str, NDArray]) -> int:
    checksum = 0
    for value in values.values():
        checksum = zlib.crc32(value.tobytes(), checksum)
    return checksum or 1
