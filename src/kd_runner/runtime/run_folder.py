"""The folder of one run: the one owner of its state."""

import contextlib
import fcntl
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_runner.errors import ConfigError
from kd_runner.runtime.files import read_mapping, remove_parts, storage_error, write_json, write_text
from kd_runner.runtime.flatten import flatten
from kd_runner.runtime.ranks import is_first, launcher_pid
from kd_runner.runtime.result_keys import differences
from kd_runner.runtime.run_log import RunLog
from kd_runner.runtime.saved_config import read_config

log = logging.getLogger(__name__)

# That a loss has the temperature of distillation, and not one of its own, is known by this reference alone.
TEMPERATURE = "${kd.temperature}"


_STATUS_TYPES = {"status": str, "seconds": int | float, "stages": dict, "step": int}


class RunFolder:
    """Lock, configuration, status, stages and paths of one run.

    `status.json` holds `status` (running, stopped, failed, ended), `error`, `step` and `training_cost` (of the last
    checkpoint), `seconds` (over all sessions of the run) and `stages` (name to result). Only the first process of a job
    writes. Nothing is written before `claim`, and nothing into the folder of an ended run.

    Args:
        path: the folder; it need not exist.
        hydra_files: what Hydra knows of the command, by file name, for `.hydra/`.
    """

    def __init__(self, path: Path | str, hydra_files: Mapping[str, str] | None = None):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.best_checkpoint = self.checkpoints / "best.ckpt"
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.json"
        self.status_file = self.path / "status.json"
        self.hydra_files = dict(hydra_files or {})
        self._claimed = False
        self._started = time.perf_counter()
        self._status: dict[str, Any] = {}
        self._log: RunLog | None = None

    def weights(self, role: str, untrained: bool = False) -> Path:
        """File of the weights of `student` or `teacher`."""
        return self.path / f"{role}{'_untrained' if untrained else ''}.safetensors"

    # --- state on disk

    def has_best(self) -> bool:
        """Whether a checkpoint was chosen by the metric."""
        return self.best_checkpoint.is_file()

    def read_status(self) -> dict[str, Any]:
        """What `status.json` holds; empty where there is none."""
        return read_mapping(self.status_file, _STATUS_TYPES) if self.status_file.is_file() else {}

    def read_metrics(self) -> dict[str, Any]:
        """Content of `metrics.json`.

        Raises:
            ConfigError: the file is missing or broken.
        """
        if not self.metrics_file.is_file():
            raise ConfigError(f"{self.metrics_file} is missing: the run did not end")
        metrics = read_mapping(self.metrics_file)
        if not metrics or not isinstance(metrics.get("score", 0.0), int | float):
            raise ConfigError(f"{self.metrics_file} is broken: it holds no metrics")
        return metrics

    def is_ended(self) -> bool:
        return self.metrics_file.is_file() and self.read_status().get("status") == "ended"

    def is_stopped(self) -> bool:
        """Started, not ended, and no living process holds it."""
        if not self.config_file.is_file():
            return False
        with contextlib.suppress(ConfigError):  # a broken file is named when the run is claimed
            if self.is_ended():
                return False
        try:
            with self.lock():
                return True
        except ConfigError:
            return False

    @property
    def last_written(self) -> float:
        """When the status last changed, in seconds since 1970."""
        file = self.status_file if self.status_file.is_file() else self.config_file
        return file.stat().st_mtime

    # --- lock and claim

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; the system lets go when the process ends, however it ends.

        Raises:
            ConfigError: another process holds it.
        """
        if not is_first() or launcher_pid() is not None:
            yield  # the first process of the job, or the one that launched this one, holds it
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a")
        except OSError as error:
            raise storage_error(self.path, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(f"hydra.run.dir: another process is working in {self.path}; choose another") from None
            yield

    def claim(self, cfg: DictConfig, extendable_key: str | tuple[str, ...] | None = None) -> dict[str, Any] | None:
        """Take the folder for a configuration. Returns the metrics where the same run ended here before.

        Args:
            extendable_key: key of a list, or several; where more stands in it than before, and all else that changes
                the result is equal, the run goes on.

        Raises:
            ConfigError: the folder holds a run of other settings; nothing was changed in it.
        """
        new, status = resolved(cfg), self.read_status()
        extended = False
        if self.config_file.is_file():
            extended = self._check_settings(read_config(self.config_file), new, extendable_key)
            if self.is_ended() and not extended:
                return self.read_metrics()
        self._claimed, self._started = True, time.perf_counter()
        forget = extended or (status.get("status") == "ended" and not self.metrics_file.is_file())
        stages = {} if forget else status.get("stages", {})
        self._status = {"status": "running", "seconds": status.get("seconds", 0.0), "stages": stages}
        self._status |= {key: status[key] for key in ("step", "training_cost") if key in status}
        if is_first():
            remove_parts(self.path)
            if extended:
                self.metrics_file.unlink(missing_ok=True)
            self._write_hydra_files()
            write_text(self.config_file, OmegaConf.to_yaml(new))
            write_json(self.status_file, self._status)
            self._open_log()
        return None

    def run_or_load(
        self, cfg: DictConfig, work: Callable[[], float | None], extendable_key: str | tuple[str, ...] | None = None
    ) -> float | None:
        """Do the work of a run and end it, or return the metric of the same run where it ended in this folder before.

        Args:
            extendable_key: see `claim`.
        """
        metrics = self.claim(cfg, extendable_key)
        if metrics is None:
            score = work()
            self._finish("ended")
            return score
        score = metrics.get("score")
        log.info("%s has ended already%s", self.path, "" if score is None else f": {cfg.monitor} {score:.4f}")
        return score

    def _check_settings(self, saved: Any, new: Any, extendable_key: str | tuple[str, ...] | None) -> bool:
        """Whether the new settings only extend the saved ones."""
        changed = differences(saved, new)
        keys = (extendable_key,) if isinstance(extendable_key, str) else extendable_key or ()
        if changed and changed.keys() <= set(keys):
            lists = [(set(before or ()), set(after or ())) for before, after in changed.values()]
            if all(before < after for before, after in lists):
                return True
        if changed:
            shown = "; ".join(f"{key}: {old} there, {new} now" for key, (old, new) in list(changed.items())[:4])
            raise ConfigError(
                f"{self.path} holds a run of other settings ({shown}). Give the same ones to go on with it, or write "
                "elsewhere (hydra.run.dir, in a sweep hydra.sweep.dir)."
            )
        return False

    # --- stages and status

    def stage(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do one stage of the run and record its result, or give the result recorded when it was done before."""
        stages = self._status["stages"]
        if name not in stages:
            stages[name] = work()
            self._write_status()
        return stages[name]

    def is_done(self, name: str) -> bool:
        """Whether a stage is recorded."""
        return name in self._status.get("stages", {})

    @property
    def seconds(self) -> float:
        """Working time of the run until now, over all its sessions."""
        return self._status.get("seconds", 0.0) + time.perf_counter() - self._started

    @property
    def training_cost(self) -> dict[str, Any] | None:
        """What the training took until its last checkpoint (`TrainingCost.cost`); None where nothing is recorded."""
        status = self.read_status()
        trained = status.get("stages", {}).get("train", {})
        return trained.get("training_cost") or status.get("training_cost")

    def record_step(self, step: int, cost: Mapping[str, Any] | None = None) -> None:
        """A checkpoint of this step was written.

        Args:
            cost: what the training took until then (`TrainingCost.cost`).
        """
        self._status |= {"step": step, **({"training_cost": dict(cost)} if cost else {})}
        self._write_status()

    def stop(self) -> None:
        """Record that the run was told to stop."""
        self._finish("stopped")

    def stop_message(self) -> str:
        """One line on where the run was stopped and how it goes on."""
        if self.is_ended() or not self.config_file.is_file():
            return "stopped"
        step = self.read_status().get("step")
        if step is None:
            return "stopped before the first checkpoint; resume=auto starts again"
        return f"stopped at step {step}; resume=auto goes on"

    def fail(self, message: str) -> None:
        """Record an error: in a folder that this run has claimed, or that is new."""
        if not self._claimed and is_first() and not self.config_file.exists():
            self._write_hydra_files()
            self._open_log()
            self._claimed = True
        self._finish("failed", error=message)

    def adopt(self) -> None:
        """Take the status that a launched process has recorded: for the launcher, which holds the lock."""
        self._status, self._started = self.read_status(), time.perf_counter()
        self._claimed = self._status.get("status") == "running"

    def _finish(self, status: str, **more: Any) -> None:
        if self._claimed:
            self._status |= {"status": status, **more}
            self._write_status()

    def _write_status(self) -> None:
        if self._claimed and is_first():
            write_json(self.status_file, {**self._status, "seconds": self.seconds})

    # --- files of the command

    @contextlib.contextmanager
    def log_to_file(self) -> Iterator[None]:
        """Log into `run.log` once the folder is claimed."""
        if not is_first():
            yield
            return
        self._log = RunLog()
        logging.getLogger().addHandler(self._log)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(self._log)
            self._log.close()
            self._log = None

    def _open_log(self) -> None:
        if self._log is not None:
            self._log.open(self.path)

    def _write_hydra_files(self) -> None:
        for name, text in self.hydra_files.items():
            write_text(self.path / ".hydra" / name, text)


def resolved(cfg: DictConfig, keep: str | None = None) -> DictConfig:
    """Plain values where interpolations were: fit for a file, or for a process that does not know our resolvers.

    Args:
        cfg: the configuration.
        keep: an interpolation that stays, where it is the whole value.
    """
    plain: Any = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    for key, value in flatten(OmegaConf.to_container(cfg)).items():
        if keep is not None and value == keep:
            OmegaConf.update(plain, key, keep)
    return plain
