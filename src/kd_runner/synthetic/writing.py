"""What the writers of the embedded data sets have in common."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kd_runner.runtime.write_once import write_once


def write_checked(
    root: str | Path,
    arguments: Mapping[str, Any],
    at_least: Mapping[str, float],
    fill: Callable[[Path], None],
) -> Path:
    """Check a writer's arguments, and write its data set once.

    The files go into a folder beside `root` that is renamed at the end: a stopped run leaves nothing half done, and of
    two runs at once one wins. A complete data set of the same arguments is used as it is.

    Args:
        root: folder of the data set.
        arguments: all that the files depend on, kept beside them in `manifest.json`.
        at_least: lowest value of arguments.
        fill: writes the files into a new, empty folder.

    Returns:
        `root`.

    Raises:
        ValueError: an argument is too small, or `root` holds anything else.
    """
    for name, low in at_least.items():
        if arguments[name] < low:
            raise ValueError(f"{name}={arguments[name]}: must be at least {low}")
    write_once(Path(root), arguments, fill)
    return Path(root)
