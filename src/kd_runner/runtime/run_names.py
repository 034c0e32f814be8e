"""Names of run folders: new ones without clashes, and the one of the run that goes on."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from kd_runner.errors import ConfigError
from kd_runner.runtime.ranks import launcher_pid, world_size
from kd_runner.runtime.run_folder import RunFolder

OUTPUTS = Path("outputs")


def run_name(resume: str | None, experiment: str, now: str) -> str:
    """Name of the run's folder below `outputs/<experiment>`: a new one, or that of the run to go on with.

    Args:
        resume: as in the configuration.
        experiment: name of the experiment.
        now: name of a new folder.

    Returns:
        The name.
    """
    if resume is None:
        # All processes of one job must agree; their clocks do not.
        for job_id in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
            if os.environ.get(job_id) and world_size() > 1:
                return f"job_{os.environ[job_id]}"
        return now
    if resume != "auto":
        folder = owner(Path(resume))
        return os.path.relpath(folder, OUTPUTS / experiment) if folder else now
    runs = [RunFolder(file.parent) for file in (OUTPUTS / experiment).glob("*/config.yaml")]
    stopped = [run for run in runs if run.is_stopped()]
    return max(stopped, key=lambda run: run.last_written).path.name if stopped else now


def owner(path: Path) -> Path | None:
    """The run folder that a path is or lies in.

    Args:
        path: the path.

    Returns:
        The folder; None where there is none.
    """
    for folder in (path, *path.parents):
        if (folder / "config.yaml").is_file() and folder.name != ".hydra":
            return folder
    return None


def check_name(resume: str | None, folder: Path) -> None:
    """Check that the run's folder is the one that `resume` asks for.

    Args:
        resume: as in the configuration.
        folder: of the run.

    Raises:
        ConfigError: `resume` names no run, or torchrun's processes have no name to agree on.
    """
    if folder.name == "job_none" and launcher_pid() is None:
        raise ConfigError("hydra.run.dir: name the run for all its processes: torchrun --rdzv-id NAME ...")
    if resume not in (None, "auto") and owner(Path(str(resume))) is None:
        raise ConfigError(f"resume: {resume} is no run folder and lies in none (a run folder holds config.yaml)")


def name_sweep(words: list[str]) -> None:
    """Name a sweep after the keys that it varies, so that the same sweep finds its folder again.

    By an environment variable: it reaches the points that a launcher runs in other processes.

    Args:
        words: of the command line.
    """
    if not {"-m", "--multirun"} & set(words):
        return
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    plain = [word for word in words if "=" in word and not word.startswith("-")]
    try:
        overrides = OverridesParser.create().parse_overrides(plain)
    except HydraException:
        return  # Hydra will say what is wrong
    keys = [o.key_or_group for o in overrides if o.is_sweep_override()]
    os.environ["KD_RUNNER_SWEEP"] = point_name("_".join(["sweep", *keys]))


def sweep_name() -> str:
    """Name of the sweep's folder, from `name_sweep`."""
    return os.environ.get("KD_RUNNER_SWEEP", "sweep")


def point_name(text: str) -> str:
    """Folder name of a point of a sweep.

    Args:
        text: the settings that the point varies.

    Returns:
        The text with `/` and blanks replaced, cut with a digest where a file system could not take it.
    """
    name = re.sub(r"[^\w.,=+\-\[\]]", "-", text) or "point"
    return name if len(name) <= 120 else f"{name[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def experiment_name() -> str:
    """The chosen experiment; empty where the configuration was composed elsewhere."""
    if not HydraConfig.initialized():
        return ""
    choices: Any = HydraConfig.get().runtime.choices
    return str(choices.get("experiment", ""))
