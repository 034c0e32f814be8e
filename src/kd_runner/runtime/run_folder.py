"""Where a run writes: names without clashes, one process a folder, finding the run that was stopped."""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_runner.errors import ConfigError
from kd_runner.runtime.files import read_json, write_json, write_text
from kd_runner.runtime.flatten import flatten

log = logging.getLogger(__name__)

OUTPUTS = Path("outputs")
# What may differ between a run and its continuation.
_FREE_KEYS = ("resume", "cache", "logger")


def register_resolvers() -> None:
    """Functions that the yaml files call."""
    assets = Path(__file__).parents[1] / "assets"
    OmegaConf.register_new_resolver("asset", lambda name: str(assets / name), replace=True)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", lambda: os.environ.get("KD_RUNNER_SWEEP", "sweep"), replace=True)
    OmegaConf.register_new_resolver("point_name", point_name, replace=True)


def run_name(resume: str | None, experiment: str, now: str) -> str:
    """Name of the run's folder below `outputs/<experiment>`: a new one, or that of the run to go on with."""
    if resume is None:
        # All processes of one job must agree; their clocks do not.
        for job_id in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
            if os.environ.get(job_id) and int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))) > 1:
                return f"job_{os.environ[job_id]}"
        return now
    if resume != "auto":
        found = owner(Path(resume))
        return os.path.relpath(found, OUTPUTS / experiment) if found else now
    stopped = [p.parent.name for p in (OUTPUTS / experiment).glob("*/config.yaml") if is_stopped(p.parent)]
    return max(stopped, default=now)


def owner(path: Path) -> Path | None:
    """The run folder that a path is or lies in; None where there is none."""
    for folder in (path, *path.parents):
        if (folder / "config.yaml").is_file() and folder.name != ".hydra":
            return folder
    return None


def check_name(resume: str | None, folder: Path) -> None:
    """Raises:
    ConfigError: `resume` names no run, or torchrun's processes have no name to agree on.
    """
    if folder.name == "job_none" and "KD_RUNNER_LAUNCHED" not in os.environ:
        raise ConfigError("hydra.run.dir: name the run for all its processes: torchrun --rdzv-id NAME ...")
    if resume not in (None, "auto") and owner(Path(str(resume))) is None:
        raise ConfigError(f"resume: {resume} is no run folder and lies in none (a run folder holds config.yaml)")


def is_stopped(folder: Path) -> bool:
    """Begun, not ended, and no living process holds it."""
    if (folder / "metrics.json").exists():
        return False
    try:
        with lock(folder):
            return True
    except ConfigError:
        return False


def name_sweep(words: list[str]) -> None:
    """Name a sweep after the keys that it varies, so that the same sweep finds its folder again.

    By an environment variable: it reaches the points that a launcher runs in other processes.
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


def point_name(text: str) -> str:
    """A folder name: `/` and blanks replaced, cut with a digest where a file system could not take it."""
    name = re.sub(r"[^\w.,=+\-\[\]]", "-", text) or "point"
    return name if len(name) <= 120 else f"{name[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder; the system lets go when the process ends, however it ends.

    Raises:
        ConfigError: another process holds it.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" or "KD_RUNNER_LAUNCHED" in os.environ:
        yield  # the first process, or the one that launched this one, holds it
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"hydra.run.dir: another process is working in {folder}; choose another") from None
        yield


def resolved(cfg: DictConfig) -> DictConfig:
    """Plain values where interpolations were: fit for a file, or for a process that does not know our resolvers."""
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[return-value]


def claim_run_dir(folder: Path, cfg: DictConfig, extendable_key: str | None = None) -> dict[str, Any] | None:
    """Claim a folder for a configuration. Returns the metrics where the same run ended here before.

    Args:
        extendable_key: key of a list; where more stands in it than before, and all else is equal, the run goes on.

    Raises:
        ConfigError: the folder holds a run of other settings.
    """
    saved = folder / "config.yaml"
    now = resolved(cfg)
    if saved.is_file():
        old, new = _flat(OmegaConf.load(saved)), _flat(now)
        more = extendable_key is not None and set(old.get(extendable_key) or ()) < set(new[extendable_key])
        differing = _differing(old, new)
        if more and len(differing) == 1:
            (folder / "metrics.json").unlink(missing_ok=True)
        elif differing:
            shown = "; ".join(differing[:4])
            raise ConfigError(
                f"{folder} holds a run of other settings ({shown}). Give the same ones to go on with it, or write "
                "elsewhere (hydra.run.dir, in a sweep hydra.sweep.dir)."
            )
        elif (folder / "metrics.json").is_file():
            return read_json(folder / "metrics.json")
    (folder / "failed.json").unlink(missing_ok=True)
    write_text(saved, OmegaConf.to_yaml(now))
    return None


def run_or_load(
    folder: Path, cfg: DictConfig, work: Callable[[], float | None], extendable_key: str | None = None
) -> float | None:
    """Do the work of a run, or return the metric of the same run where it ended in this folder before.

    Args:
        extendable_key: see `claim_run_dir`.
    """
    ended = claim_run_dir(folder, cfg, extendable_key)
    if ended is None:
        return work()
    log.info("%s has ended already: %s %.4f", folder, cfg.monitor, ended["score"])
    return ended["score"]


def mark_failed(folder: Path, message: str) -> None:
    write_json(folder / "failed.json", {"error": message})


def _flat(cfg: Any) -> dict[str, Any]:
    flat = flatten(OmegaConf.to_container(cfg))
    return {key: value for key, value in flat.items() if key.split(".")[0] not in _FREE_KEYS}


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    keys = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    return [f"{k}: {old.get(k)} there, {new.get(k)} now" for k in keys]


def is_first() -> bool:
    """Whether this process is the one that writes reports."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
