"""task=train: train the student, measure, export, report."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from omegaconf import DictConfig, OmegaConf

from kd_runner.config import build
from kd_runner.data.module import DataModule
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.profiling import costs
from kd_runner.report.provenance import data_pools, measured_weights
from kd_runner.report.run_page import run_page
from kd_runner.runtime import run_folder
from kd_runner.runtime.files import write_json, write_text

log = logging.getLogger(__name__)


def train(cfg: DictConfig, folder: Path) -> float | None:
    """Train the student in `folder`; go on where a run of the same settings stopped there. Returns its metric."""

    def work() -> float | None:
        data = build.data(cfg)
        teacher = build.teacher(cfg) if build.needs_teacher(cfg) else None
        student = build.student(cfg, teacher, data)
        return fit_and_report(cfg, folder, data, student, teacher if build.reads_teacher(cfg) else None)

    return run_folder.run_or_load(folder, cfg, work)


def fit_and_report(
    cfg: DictConfig, folder: Path, data: DataModule, student: FeatureExtractor, teacher: FeatureExtractor | None
) -> float | None:
    """Fit, choose the best, measure it, and write `metrics.json` and `report.md`."""
    started = time.perf_counter()
    seed_everything(cfg.seed, verbose=False)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    module = build.distiller(cfg, student, teacher, data.example())
    len(data.val)  # a wrong path must not show only after the first epoch
    trainer = build.trainer(cfg, folder)
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        log.info("going on from %s", last)
    # Our own file: it holds the optimizer's and the callbacks' plain objects beside tensors.
    trainer.fit(module, data, ckpt_path=str(last) if last.exists() else None, weights_only=False)
    log.info("trained %d steps; measuring the best", trainer.global_step)
    (measured,) = trainer.validate(module, data, verbose=False)
    metrics = {name.removeprefix("val/"): value for name, value in measured.items()}
    result: dict[str, Any] = {
        "scale": cfg.scale,
        "seed": cfg.seed,
        "monitor": cfg.monitor,
        "score": metrics[cfg.monitor],
        "metrics": metrics,
        "steps": trainer.global_step,
        "seconds": time.perf_counter() - started,
        "weights": measured_weights(cfg, "best" if (folder / "checkpoints" / "best.ckpt").exists() else "last"),
        "data": data_pools(cfg, data),
        "class_names": list(cfg.data.get("class_names") or []),
        **costs.static(student.net, student.one_sample(data.example(1))),
    }
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        result |= getattr(callback, "result", {})
    if trainer.is_global_zero:
        write_json(folder / "metrics.json", result)
        write_text(folder / "report.md", run_page(cfg, result, folder))
        _log_hparams(cfg, trainer.loggers)
        log.info("%s %.4f, %.2f M parameters: %s", cfg.monitor, result["score"], result["parameters"] / 1e6, folder)
    return result["score"]


def _log_hparams(cfg: DictConfig, loggers: list[Any]) -> None:
    """The settings that a sweep varies, for every logger; the score is the last value of the validation curve."""
    params = {
        "kd.enabled": "yes" if cfg.kd.enabled else "no",
        "kd.temperature": cfg.kd.temperature,
        "kd.alpha": cfg.kd.alpha if cfg.kd.alpha is not None else "weights",
        "seed": cfg.seed,
        "optimizer.lr": OmegaConf.select(cfg, "optimizer.lr"),
        **{f"loss.{name}.weight": node.weight for name, node in cfg.loss.items()},
    }
    for logger in loggers:
        logger.log_hyperparams(params)
        logger.finalize("success")
