"""What the command line does, from Python: compose a configuration, run it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kd_runner.cli.explain import explain
from kd_runner.cli.main import perform
from kd_runner.config.compose import compose_checked
from kd_runner.errors import ConfigError
from kd_runner.runtime import launch
from kd_runner.runtime.files import read_json
from kd_runner.runtime.run_folder import RunFolder


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Args:
        folder: the run's folder.
        score: the metric that `monitor` names; None where the task has none.
        metrics: content of `metrics.json`.
        student: weights for `load_student`; None where the task writes none.
    """

    folder: Path
    score: float | None
    metrics: dict[str, Any]
    student: Path | None


def compose(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> DictConfig:
    """The configuration as the command line makes it.

    Args:
        overrides: words of the command line, e.g. `["experiment=voc_kd", "kd.temperature=2"]`.
        config_dir: a folder with yaml files of your own, as `--config-dir`.

    Returns:
        The configuration.

    Raises:
        ConfigError: an unknown key, group or choice.

    Example:
        >>> import kd_runner
        >>> cfg = kd_runner.compose(["experiment=voc_kd", "kd.temperature=2"])
        >>> float(cfg.kd.temperature)
        2.0
    """
    words, config_dirs = list(overrides), [] if config_dir is None else [str(config_dir)]
    try:
        return compose_checked(words, config_dirs)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(explain(error, words, config_dirs)) from error


def run(cfg: DictConfig, folder: str | Path | None = None) -> RunResult:
    """Do what the command line does with this configuration, in this process.

    Args:
        cfg: from `compose`.
        folder: where to write; a run of the same configuration that stopped there goes on, one that ended is read.
            None for a new folder below `outputs/`.

    Returns:
        Folder, score, metrics and weights.

    Raises:
        ConfigError: what the command line would print; a `trainer` of several processes, which needs the command line.

    Example:
        >>> import kd_runner
        >>> cfg = kd_runner.compose(["experiment=voc_kd", "trainer.max_epochs=1", "export=none"])
        >>> result = kd_runner.run(cfg, "outputs/notebook")
        >>> result.metrics["monitor"]
        'miou'
    """
    if launch.is_needed(cfg):
        raise ConfigError("trainer: several processes are started by the command line alone: python -m kd_runner ...")
    path = Path("outputs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}" if folder is None else Path(folder)
    folder_of_run = RunFolder(path)
    with folder_of_run.lock(), folder_of_run.log_to_file():
        score = perform(cfg, folder_of_run)
    metrics = read_json(path / "metrics.json") if (path / "metrics.json").is_file() else {}
    files = [path / f"{role}.safetensors" for role in ("student", "teacher")]
    student = next((file for file in files if file.is_file()), None)
    return RunResult(path, score, metrics, student)
