"""What the points of one sweep return: a small file per point, in a folder that belongs to this start of the sweep."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from kd_runner.runtime.files import read_json, write_json

_VARIABLE = "KD_RUNNER_SWEEP_SESSION"


def open_session(sweep_folder: Path) -> None:
    """Start a session: points that run from now on, here or in a launcher's processes, report to it.

    Args:
        sweep_folder: folder of the sweep.
    """
    session = sweep_folder.resolve() / f".session-{time.time_ns()}-{os.getpid()}"
    session.mkdir(parents=True)
    os.environ[_VARIABLE] = str(session)


def record(number: int, folder: Path, overrides: list[str], status: str, **more: Any) -> None:
    """Report a point; nothing where no session is open.

    Args:
        number: number of the point in this sweep.
        folder: its run folder.
        overrides: its words of the command line.
        status: `started`, `ended`, `failed`, or `running` (held by another process).
        **more: `score`, `error`.
    """
    if _VARIABLE in os.environ:
        point = {"number": number, "folder": str(folder.resolve()), "overrides": overrides, "status": status, **more}
        write_json(Path(os.environ[_VARIABLE]) / f"{number}.json", point)


def close_session() -> list[dict[str, Any]]:
    """The points of the session, in their order; a point that died without a word is still `started`."""
    session = Path(os.environ.pop(_VARIABLE))
    points = [read_json(file) for file in session.glob("*.json")]
    shutil.rmtree(session)
    return sorted(points, key=lambda point: int(point["number"]))
