"""What the writers of the embedded data sets have in common."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kd_runner.runtime.write_once import write_once

Arguments = Mapping[str, Any]

# The splits of the image data sets, and their numbers among the seeds.
SPLITS = {"train": 0, "val": 1, "unlabeled": 2, "teacher": 3}


def write_checked(
    root: str | Path, arguments: Arguments, at_least: Mapping[str, float], fill: Callable[[Path, Arguments], None]
) -> Path:
    """Check a writer's arguments, and write its data set once.

    The files go into a folder beside `root` that is renamed at the end: a stopped run leaves nothing half done, and of
    two runs at once one wins. A complete data set of the same arguments is used as it is.

    Args:
        root: folder of the data set.
        arguments: all that the files depend on, kept beside them in `manifest.json`.
        at_least: lowest value of arguments.
        fill: writes the files into a new, empty folder, given the arguments.

    Returns:
        `root`.

    Raises:
        ValueError: an argument is too small.
        ConfigError: `root` holds anything else.
    """
    for name, low in at_least.items():
        if arguments[name] < low:
            raise ValueError(f"{name}={arguments[name]}: must be at least {low}")
    write_once(Path(root), arguments, lambda folder: fill(folder, arguments))
    return Path(root)


def sample_random(*numbers: int) -> np.random.Generator:
    """Chance of one sample, which depends on nothing else: a longer list of samples begins with the shorter one.

    Args:
        *numbers: the seed, the number of the split and that of the sample, and what else it depends on.

    Returns:
        The generator.
    """
    return np.random.default_rng(list(numbers))
