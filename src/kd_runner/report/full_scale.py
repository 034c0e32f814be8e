"""A hand-written table: what was run at full scale, and what was not."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kd_runner.report.tables import Table

_COLUMNS = {"experiment": "experiment", "run": "run at full scale", "not_run": "not run", "why": "why not"}


def read(path: Path) -> Table:
    """Rows of the table, the head first, from a yaml list of `{experiment, run, not_run, why}`.

    Args:
        path: the yaml file.

    Returns:
        The table; every cell is text on one line.

    Raises:
        ValueError: the file is missing, or an entry has other keys.
    """
    if not path.is_file():
        raise ValueError(f"--full-scale: no file {path}")
    entries: Any = OmegaConf.to_container(OmegaConf.load(path))
    for entry in entries:
        if set(entry) != set(_COLUMNS):
            raise ValueError(f"--full-scale: {path}: an entry has {sorted(entry)}, expected {sorted(_COLUMNS)}")
    return [list(_COLUMNS.values()), *([" ".join(str(entry[key]).split()) for key in _COLUMNS] for entry in entries)]
