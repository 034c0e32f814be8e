"""The entry: Hydra composes the configuration, a task does the work, a user's mistake becomes one message."""

import logging
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from kd_runner.cli import arguments
from kd_runner.config.compose import register
from kd_runner.config.location import CONF
from kd_runner.errors import ConfigError
from kd_runner.runtime import run_names, sweep_session
from kd_runner.runtime.ranks import is_first
from kd_runner.runtime.run_folder import RunFolder
from kd_runner.runtime.signals import Stopped, stoppable

log = logging.getLogger("kd_runner")


INTERRUPTED = 130  # exit code after Ctrl-C, as in every shell


def main() -> None:
    """Compose the configuration of the command line and do what it says."""
    words, config_dirs = sys.argv[1:], list[str]()
    # Idle OpenMP threads that spin make small operations many times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises, instead of printing a text of its own
    try:
        sys.argv[1:] = words = arguments.flags_first(words)
        config_dirs = arguments.config_dirs(words)
        arguments.check_renamed(words)
        arguments.check_choices([word for word in words if "=" in word and not word.startswith("-")])
        register()
        run_names.name_sweep(words)
        add_own_folders([os.getcwd(), *config_dirs])
        with stoppable():
            hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(job)()
    except Stopped as stop:  # while the configuration was composed; `job` answers later ones
        print("stopped before anything was written", file=sys.stderr)
        raise SystemExit(stop.code) from None
    except KeyboardInterrupt:
        print("interrupted; resume=auto goes on where checkpoints were written", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        from kd_runner.cli.explain import explain

        print(explain(error, words, config_dirs), file=sys.stderr)
        raise SystemExit(1) from None


def add_own_folders(folders: list[str]) -> None:
    """Makes a user's own Python files importable: those of the current folder, and those beside one's own yaml files.

    They stand behind the standard library, which a file `random.py` would hide from torch, and ahead of the installed
    packages.

    Args:
        folders: absolute paths.
    """
    own = {"", *folders}
    others = [path for path in sys.path if path not in own]
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    first = next((i for i, path in enumerate(others) if path in packages), len(others))
    sys.path[:] = [*others[:first], *folders, *others[first:]]


def job(cfg: DictConfig) -> float | None:
    """Do one run, or one point of a sweep.

    Args:
        cfg: the composed configuration.

    Returns:
        Its metric; in a sweep, nan for a point that failed.
    """
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
        message = str(error)
        log.error("%s", message)
    except Exception as error:
        message = log_unexpected(error, run.path)
    if not sweeping:
        raise SystemExit(1)
    # A point whose folder could not be locked is at work in another process.
    _record_point(run.path, "failed" if locked else "running", error=message)
    return float("nan")


def log_unexpected(error: Exception, folder: Path) -> str:
    """Log an error of an unknown kind in three lines; the whole traceback goes to `run.log`.

    Args:
        error: what was raised.
        folder: of the run.

    Returns:
        The message.
    """
    from kd_runner.cli.explain import unexpected

    message = unexpected(error)
    file = folder / "run.log"
    try:
        with file.open("a") as lines:
            lines.write("".join(traceback.format_exception(error)))
        hint = f"The whole traceback is in {file}"
    except OSError as problem:
        hint = f"The traceback could not be written: {problem}"
    log.error("%s\n%s", message, hint)
    return message


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
    """Check the configuration, then do what `task` says.

    Args:
        cfg: the composed configuration.
        run: folder of the run.

    Returns:
        The run's metric, where the task has one.
    """
    from kd_runner.config import entries, validate

    run_names.check_name(cfg.resume, run.path)
    if cfg.resume == "auto" and is_first() and not run.config_file.is_file():
        log.info("resume=auto: no run of this experiment was stopped; a new one starts in %s", run.path)
    validate.check(entries.clean(cfg))

    import torch
    from hydra.utils import get_method

    from kd_runner.runtime import launch

    if launch.is_needed(cfg):
        return launch.run_processes(cfg, run)
    # Before torch starts threads, which inherit it: numbers below 1e-38, as sharp attention makes them, are ten times
    # slower on a CPU than zeros.
    torch.set_flush_denormal(True)
    task: Any = get_method(cfg.task._target_)
    try:
        return task(cfg, run)
    except Stopped:
        raise
    except SystemExit as end:  # of a user's own code: it would end the command as if all were well
        if isinstance(end.__context__, KeyboardInterrupt):  # which Lightning turns into exit code 1
            raise KeyboardInterrupt from None
        raise RuntimeError(f"sys.exit({end.code!r}) was called").with_traceback(end.__traceback__) from None
