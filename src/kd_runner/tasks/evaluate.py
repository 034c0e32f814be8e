"""task=evaluate: teacher and student on the validation set."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kd_runner.config import build
from kd_runner.data.module import DataModule
from kd_runner.distillation import checkpoints
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.module import Distiller
from kd_runner.errors import ConfigError, nearest
from kd_runner.report.comparison import protocol_sentences
from kd_runner.report.provenance import evaluation_sentence, protocols, recorded_weights
from kd_runner.report.tables import markdown
from kd_runner.runtime.files import write_json, write_text
from kd_runner.runtime.ranks import is_first
from kd_runner.runtime.run_folder import RunFolder

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, run: RunFolder) -> float | None:
    """Measure what `student.checkpoint` and `teacher.checkpoint` name.

    Args:
        cfg: the composed configuration.
        run: folder where `metrics.json` and `report.md` are written.

    Returns:
        The student's monitored metric; the teacher's where no weights of a student are named.

    Raises:
        ConfigError: no weights are named, or the monitored metric was not measured.
    """
    if cfg.student.checkpoint is None and cfg.teacher.checkpoint is None:
        raise ConfigError("student.checkpoint: name the weights to evaluate, e.g. outputs/.../student.safetensors")
    return run.run_or_load(cfg, lambda: _evaluate(cfg, run))


def _evaluate(cfg: DictConfig, run: RunFolder) -> float | None:
    data = build.data(cfg)
    measured: dict[str, dict[str, float]] = {}
    if cfg.teacher.checkpoint is not None:
        measured["teacher"] = measure(cfg, run.path, build.teacher(cfg), data)
    if cfg.student.checkpoint is not None:
        measured["student"] = measure(cfg, run.path, build.student(cfg), data)
    score = measured.get("student", measured.get("teacher", {}))[cfg.monitor]
    if is_first():
        names = list(next(iter(measured.values())))
        table = markdown([["metric", *measured], *([name, *(m[name] for m in measured.values())] for name in names)])
        how = protocols({name: metric for name, (metric, _) in build.metrics(cfg).items()})
        files = {role: checkpoints.find_file(cfg[role].checkpoint, role) for role in measured}
        weights = recorded_weights(files["student"]) if "student" in files else {}
        result = {"scale": cfg.scale, "score": score, "protocols": how, "metrics": measured, "weights": weights}
        write_json(run.metrics_file, result)
        sections = [f"# {run.path.name}: evaluation at scale {cfg.scale}", table, *protocol_sentences(how)]
        sections += [evaluation_sentence(cfg, role, file) for role, file in files.items()]
        write_text(run.path / "report.md", "\n\n".join(sections) + "\n")
        log.info("%s", table)
    return score


def measure(cfg: DictConfig, folder: Path, net: FeatureExtractor, data: DataModule) -> dict[str, float]:
    """Metrics of one net on the validation set.

    Args:
        cfg: the composed configuration.
        folder: of the run; the trainer works in it.
        net: teacher or student.
        data: the data module.

    Returns:
        Name of each metric to its value.

    Raises:
        ConfigError: nothing was measured, or not the monitored metric.
    """
    return validate(cfg, RunFolder(folder), build.evaluator(cfg, net), data)


def validate(cfg: DictConfig, run: RunFolder, module: Distiller, data: DataModule) -> dict[str, float]:
    """Metrics of a module as it is, on the validation set: no callback changes its weights, no logger hears of it.

    Args:
        cfg: the composed configuration; it is not changed.
        run: folder of the run; the trainer works in it.
        module: what is measured; afterwards its floating-point tensors are float32.
        data: the data module.

    Returns:
        Name of each metric, without `val/`, to its value.

    Raises:
        ConfigError: nothing was measured, or not the monitored metric.
    """
    plain = cfg.copy()
    plain.callbacks, plain.logger = {}, None
    if plain.get("pruning"):
        plain.pruning = None
    plain.kd.teacher_cache.enabled = False
    trainer: Any = build.trainer(plain, run)
    results = trainer.validate(module, data, verbose=False)
    if not results:
        raise ConfigError("trainer.limit_val_batches: nothing was measured; leave it out, or take a number above 0")
    (measured,) = results
    module.float()  # trainer.precision=bf16-true has cast it; sizes, pictures and files are those of float32
    metrics = {name.removeprefix("val/"): value for name, value in measured.items()}
    if cfg.monitor not in metrics:
        raise ConfigError(f"monitor={cfg.monitor}: no metric of this name was measured.{nearest(cfg.monitor, metrics)}")
    return metrics
