"""The entry: Hydra composes the configuration, a task does the work, a user's mistake becomes one message."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from kd_runner.errors import ConfigError
from kd_runner.runtime import run_names, sweep_session
from kd_runner.runtime.ranks import is_first
from kd_runner.runtime.run_folder import RunFolder
from kd_runner.runtime.signals import Stopped, stoppable

PACKAGE = Path(__file__).parents[1]
CONF = next(p for p in (PACKAGE / "conf", PACKAGE.parents[1] / "conf") if p.is_dir())  # in a wheel; in a checkout

log = logging.getLogger("kd_runner")


def main() -> None:
    """`python -m kd_runner` and `kd-runner`."""
    sys.argv[1:] = _flags_first(sys.argv[1:])
    run_names.register_resolvers()
    run_names.name_sweep(sys.argv[1:])
    # A user's own Python files: those of the folder one stands in, and those beside one's own yaml files.
    sys.path[:0] = [os.getcwd(), *_config_dirs(sys.argv[1:])]
    # Idle OpenMP threads that spin make small operations many times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    begun: list[bool] = []

    def entry(cfg: DictConfig) -> float | None:
        begun.append(True)
        return job(cfg)

    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(entry)()
    except SystemExit as end:
        if end.code == 1 and not begun:  # Hydra refused a word, and has said which
            from kd_runner.cli.suggestions import print_suggestions

            print_suggestions(sys.argv[1:], str(CONF), _config_dirs(sys.argv[1:]))
        raise


def job(cfg: DictConfig) -> float | None:
    """One run, or one point of a sweep. Returns its metric; in a sweep, nan for a point that failed."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    run = RunFolder(HydraConfig.get().runtime.output_dir, _hydra_files(cfg))
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
    locked = False
    if sweeping:
        _record_point(run.path, "started")
    try:
        with stoppable(), run.lock(), run.log_to_file():
            locked = True
            score = _recorded(cfg, run)
        if sweeping:
            _record_point(run.path, "ended", score=score)
        return score
    except Stopped as stop:
        if is_first():
            print(run.stop_message(), flush=True)
        raise SystemExit(stop.code) from None
    except ConfigError as error:
        log.error("%s", error)
        log.debug("", exc_info=True)
        if not sweeping:
            raise SystemExit(1) from None
        message = str(error)
    except Exception as error:
        if not sweeping:
            raise
        log.exception("this point failed; the others go on")
        message = f"{type(error).__name__}: {error}"
    # A point whose folder could not be locked is at work in another process.
    _record_point(run.path, "failed" if locked else "running", error=message)
    return float("nan")


def _record_point(folder: Path, status: str, **more: Any) -> None:
    """Report a point of a sweep for the table at its end."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    sweep_session.record(hydra.job.num, folder, list(hydra.overrides.task), status, **more)


def _recorded(cfg: DictConfig, run: RunFolder) -> float | None:
    """`perform`, the way it ended recorded in the run's folder."""
    try:
        return perform(cfg, run)
    except Stopped:
        run.stop()
        raise
    except ConfigError as error:
        run.fail(str(error))
        raise
    except Exception as error:
        run.fail(f"{type(error).__name__}: {error}")
        raise


def _hydra_files(cfg: DictConfig) -> dict[str, str]:
    """What Hydra would write to `.hydra/` before any of our code runs; the run writes it when it owns its folder."""
    from hydra.core.hydra_config import HydraConfig

    composed = OmegaConf.create({"hydra": HydraConfig.get()})
    return {
        "config.yaml": OmegaConf.to_yaml(cfg),
        "hydra.yaml": OmegaConf.to_yaml(composed),
        "overrides.yaml": OmegaConf.to_yaml(HydraConfig.get().overrides.task),
    }


def perform(cfg: DictConfig, run: RunFolder) -> float | None:
    """Check the configuration, then do what `task` says."""
    import torch
    from hydra.utils import get_method

    from kd_runner.config import validate
    from kd_runner.runtime import launch

    run_names.check_name(cfg.resume, run.path)
    if cfg.resume == "auto" and is_first() and not run.config_file.is_file():
        log.info("resume=auto: no run of this experiment was stopped; a new one starts in %s", run.path)
    validate.check(cfg)
    if launch.is_needed(cfg):
        return launch.run_processes(cfg, run)
    # Before torch starts threads, which inherit it: numbers below 1e-38, as sharp attention makes them, are ten times
    # slower on a CPU than zeros.
    torch.set_flush_denormal(True)
    task: Any = get_method(cfg.task._target_)
    return task(cfg, run)


def _flags_first(words: list[str]) -> list[str]:
    """Hydra's parser takes no flag behind the first override; a person does not know that."""
    flags, overrides, rest = [], [], iter(words)
    for word in rest:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flags.append(word)
        if word in _WITH_VALUE:
            flags.extend([following] if (following := next(rest, None)) is not None else [])
    return [*flags, *overrides]


_WITH_VALUE = {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--cfg", "-c", "--package", "-p"}


def _config_dirs(words: list[str]) -> list[str]:
    found = []
    for word, following in zip(words, [*words[1:], ""]):
        if word in ("--config-dir", "-cd"):
            found.append(os.path.abspath(following))
        elif word.startswith("--config-dir="):
            found.append(os.path.abspath(word.partition("=")[2]))
    return found
