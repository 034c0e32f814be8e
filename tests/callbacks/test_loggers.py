"""Loggers other than TensorBoard, through Lightning's common interface.

W&B and MLflow are stand-ins that have the signatures of Lightning's classes.
"""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from kd_runner.config import build, entries
from kd_runner.config.compose import compose
from kd_runner.runtime.run_folder import RunFolder
from kd_runner.tasks.train import log_hyperparameters
from tests.config.test_hardware import distiller


class _Recorder(Logger):
    """Methods that W&B's and MLflow's loggers have, with their arguments."""

    name, version = "name", "version"

    def _start(self, save_dir: str) -> None:
        self.folder, self.params, self.metrics, self.experiment = save_dir, {}, {}, object()

    @property
    def save_dir(self) -> str:
        return self.folder

    def log_hyperparams(self, params: dict[str, Any]) -> None:  # type: ignore[override]
        self.params.update(params)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        self.metrics.update(metrics)

    def finalize(self, status: str) -> None:
        self.status = status


class WandbLike(_Recorder):
    def __init__(
        self, name=None, save_dir=".", version=None, offline=False, dir=None, id=None, anonymous=None, project=None,
        log_model=False, experiment=None, prefix="", checkpoint_name=None, add_file_policy="mutable", **kwargs: Any,
    ):  # fmt: skip
        self._start(save_dir)


class MLFlowLike(_Recorder):
    def __init__(
        self, experiment_name="lightning_logs", run_name=None, tracking_uri=None, tags=None, save_dir="./mlruns",
        log_model=False, prefix="", artifact_location=None, run_id=None, synchronous=None,
    ):  # fmt: skip
        self._start(save_dir)


def trained(cfg: Any, folder: Path) -> Any:
    """The logger of a run of two steps of a small net."""
    cfg.trainer.max_epochs, cfg.trainer.log_every_n_steps = 1, 1
    trainer = build.trainer(cfg, RunFolder(folder))
    data = torch.utils.data.DataLoader([{"x": torch.ones(3)}] * 4, batch_size=2)
    trainer.fit(distiller(cfg), data)
    log_hyperparameters(cfg, trainer.loggers, {"metrics": {"miou": 0.5}, "steps": 2})
    return trainer.logger


@pytest.mark.parametrize(
    ("logger", "project"), [(WandbLike, {"project": "kd"}), (MLFlowLike, {"experiment_name": "kd", "run_name": "a"})]
)
def test_a_logger_by_yaml(tmp_path: Path, logger: type[_Recorder], project: dict[str, str]) -> None:
    cfg = entries.clean(compose(["callbacks=[]"]))
    cfg.logger = OmegaConf.create({"_target_": f"{__name__}.{logger.__name__}", **project})
    log = trained(cfg, tmp_path)
    assert log.save_dir == str(tmp_path) and log.status == "success"
    assert log.metrics["val/miou"] == 0.5 and log.metrics["train/loss/squared"] > 0 and log.metrics["train/lr"] > 0
    assert log.params["kd.enabled"] == "yes" and log.params["loss.kl_logits.weight"] == cfg.loss.kl_logits.weight


def test_csv(tmp_path: Path) -> None:
    trained(entries.clean(compose(["callbacks=[]", "logger=csv"])), tmp_path)
    with (tmp_path / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["val/miou"] for row in rows if row["val/miou"]] == ["0.5"]
    assert sum(bool(row["train/loss/squared"]) for row in rows) == 2
