"""Files that are never half written."""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from kd_runner.errors import ConfigError

PART = ".part"
_STORAGE_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is larger than allowed",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write",
    errno.EPERM: "no permission to write",
    errno.EIO: "the disk reports an input/output error",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EISDIR: "a folder has the name of a file",
    errno.EEXIST: "a file has the name of a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its links point at each other",
}


def replace(
    path: Path, write: Callable[[BinaryIO], Any], before_rename: Callable[[Path], Any] = lambda part: None
) -> None:
    """Write beside the file, flush to disk, rename over it: a kill leaves the old or the new one whole.

    Args:
        path: the file.
        write: writes the content into an open file.
        before_rename: called with the path of the complete new file before it gets its name.

    Raises:
        ConfigError: the folder cannot be written to, with the free space.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            before_rename(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path.parent, error) from error
    except RuntimeError as error:
        # torch.save reports a failed write as an error of its zip writer, raised while the OSError was handled.
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError):
            raise storage_error(path.parent, cause) from error
        raise


def storage_error(folder: Path, error: OSError) -> Exception:
    """An error of the storage as a message with the folder and its free space.

    Args:
        folder: where the error occurred.
        error: the error.

    Returns:
        A ConfigError where the storage is at fault; else the error itself.
    """
    if error.errno not in _STORAGE_ERRORS:
        return error
    existing = next((p for p in (folder, *folder.parents) if os.path.exists(p)), Path("."))
    free = shutil.disk_usage(existing).free / 1e9
    subject = f"{error.filename}: " if error.filename and str(folder) not in str(error.filename) else ""
    return ConfigError(f"cannot write to {folder}: {subject}{_STORAGE_ERRORS[error.errno]} ({free:.2f} GB free)")


def remove_parts(folder: Path) -> None:
    """Delete what killed processes left half written; for the process that holds the folder's lock.

    Args:
        folder: the folder.
    """
    for part in [*folder.glob(f".*{PART}"), *folder.glob(f"checkpoints/.*{PART}")]:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Args:
        path: the file.
        text: its content.
    """
    replace(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """Write standard JSON: nan and infinity, which it does not know, become null.

    Args:
        path: the file.
        content: nested dicts, lists and plain values.
    """
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read what `write_json` has written, with nan for every null.

    Args:
        path: the file.

    Returns:
        The content.

    Raises:
        ConfigError: the file is no JSON.
    """
    try:
        return _with_nan(json.loads(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is broken: no JSON ({error})") from error


def read_mapping(path: Path, types: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`read_json` of a file that holds a mapping.

    Args:
        path: the file.
        types: types of the values of some keys, where these are there.

    Returns:
        The mapping.

    Raises:
        ConfigError: the file is no JSON, or holds anything else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is broken: a mapping is expected, not a {type(content).__name__}")
    for name, kind in (types or {}).items():
        if name in content and not isinstance(content[name], kind):
            raise ConfigError(f"{path} is broken: {name}={content[name]!r}")
    return content


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_nan(part) for part in value]
    return math.nan if value is None else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value
