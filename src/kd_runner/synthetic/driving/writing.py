"""What the writers of the driving world share: checks of arguments, folders that are written once, chance per clip."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kd_runner.runtime.write_once import write_once

Arguments = Mapping[str, Any]


def write_world(
    root: str | Path, arguments: Arguments, lowest: Mapping[str, int], fill: Callable[[Path, Arguments], None]
) -> Path:
    """Write a dataset below `root` once and return `root`; a complete one of the same arguments is used as it is.

    Args:
        root: a new or empty folder.
        arguments: all that the files depend on, `format` among them: the manifest of the folder.
        lowest: argument to its lowest value.
        fill: writes the files into a folder.

    Raises:
        ValueError: an argument is below its lowest value.
        ConfigError: `root` holds anything else.
    """
    for name, value in lowest.items():
        if arguments[name] < value:
            raise ValueError(f"{name}={arguments[name]}: must be at least {value}")
    root = Path(root)
    write_once(root, arguments, lambda folder: fill(folder, arguments))
    return root


def clip_random(seed: int, split: int, number: int) -> np.random.Generator:
    """Chance of a clip, which depends on nothing else: a longer list of clips begins with the shorter one."""
    return np.random.default_rng([seed, split, number])
