"""SHA-256 digests beside the files of a run, so that bytes that changed on disk are noticed when a file is read."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from kd_runner.errors import ConfigError
from kd_runner.runtime.files import read_mapping, replace, write_json

DIGESTS = "digests.json"


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Args:
        path: the file.

    Returns:
        64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_with_digest(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """`files.replace`, with the digest of the file in `digests.json` of its folder.

    The digest is recorded before the file gets its name, beside the digest of the file that it replaces: a process
    killed between the two leaves a file that still matches one of them.

    Args:
        path: the file.
        write: writes the content into an open file.
    """
    replace(path, write, before_rename=lambda part: _record(path, digest(part)))


def check_digest(path: Path, key: str) -> None:
    """Compare a file to its recorded digest; a file without a record passes.

    Args:
        path: the file.
        key: configuration key for messages.

    Raises:
        ConfigError: the bytes are not those that were written.
    """
    recorded = _read(path.parent).get(path.name)
    if recorded is not None and digest(path) not in recorded:
        raise ConfigError(
            f"{key}: {path} is damaged: its bytes are not those that the run wrote (SHA-256 in {DIGESTS} beside it). "
            "Restore the file, or delete it to go on without it"
        )


def _record(path: Path, new: str) -> None:
    digests = _read(path.parent)
    previous = [old for old in digests.get(path.name, []) if old != new] if path.exists() else []
    digests[path.name] = [new, *previous[:1]]
    write_json(path.parent / DIGESTS, {name: digests[name] for name in digests if _is_kept(path, name)})


def _is_kept(path: Path, name: str) -> bool:
    """Digests of files that were deleted are dropped."""
    return name == path.name or (path.parent / name).exists()


def _read(folder: Path) -> dict[str, list[str]]:
    file = folder / DIGESTS
    if not file.is_file():
        return {}
    content = read_mapping(file)
    if not all(isinstance(known, list) for known in content.values()):
        raise ConfigError(f"{file} is broken: a list of digests a file is expected. Delete it to go on without it")
    return content
