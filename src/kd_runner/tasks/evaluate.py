"""task=evaluate: teacher and student on the validation set."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kd_runner.config import build
from kd_runner.data.module import DataModule
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.errors import ConfigError
from kd_runner.report.tables import markdown
from kd_runner.runtime.files import write_json, write_text

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, folder: Path) -> float | None:
    """Measure what `student.checkpoint` and `teacher.checkpoint` name. Returns the student's metric."""
    if cfg.student.checkpoint is None and cfg.teacher.checkpoint is None:
        raise ConfigError("student.checkpoint: name the weights to evaluate, e.g. outputs/.../student.safetensors")
    data = build.data(cfg)
    measured: dict[str, dict[str, float]] = {}
    if cfg.teacher.checkpoint is not None:
        measured["teacher"] = measure(cfg, folder, build.teacher(cfg), data)
    if cfg.student.checkpoint is not None:
        measured["student"] = measure(cfg, folder, build.student(cfg), data)
    score = measured.get("student", measured.get("teacher", {}))[cfg.monitor]
    names = list(next(iter(measured.values())))
    table = markdown([["metric", *measured], *([name, *(m[name] for m in measured.values())] for name in names)])
    write_json(folder / "metrics.json", {"scale": cfg.scale, "score": score, "metrics": measured})
    write_text(folder / "report.md", f"# {folder.name}: evaluation at scale {cfg.scale}\n\n{table}\n")
    log.info("%s", table)
    return score


def measure(cfg: DictConfig, folder: Path, net: FeatureExtractor, data: DataModule) -> dict[str, float]:
    """Metrics of one net on the validation set."""
    quiet = cfg.copy()
    quiet.callbacks, quiet.export, quiet.logger = None, None, None
    trainer: Any = build.trainer(quiet, folder)
    (measured,) = trainer.validate(build.evaluator(cfg, net), data, verbose=False)
    return {name.removeprefix("val/"): value for name, value in measured.items()}
