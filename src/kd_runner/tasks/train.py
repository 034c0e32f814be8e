"""task=train: load, build, prune, fit, restore the best weights, measure, export, report."""

import logging
from typing import Any

import torch
from lightning.pytorch import seed_everything
from omegaconf import DictConfig, OmegaConf

from kd_runner.callbacks.atomic_checkpoints import read_checkpoint
from kd_runner.callbacks.scheduled_visualizer import ScheduledVisualizer
from kd_runner.config import build
from kd_runner.config.null_teacher import teacher_of_losses
from kd_runner.data.module import DataModule
from kd_runner.distillation import checkpoints
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.module import Distiller
from kd_runner.distillation.recorded_teacher import check_views
from kd_runner.distillation.teacher_cache import identity
from kd_runner.errors import ConfigError
from kd_runner.profiling import costs
from kd_runner.report.provenance import data_pools, measured_weights, protocols
from kd_runner.report.run_page import run_page
from kd_runner.report.training_level import constant_level
from kd_runner.runtime.files import write_json, write_text
from kd_runner.runtime.ranks import is_first
from kd_runner.runtime.run_folder import RunFolder
from kd_runner.tasks.dry_run import check_metrics
from kd_runner.tasks.evaluate import validate
from kd_runner.tasks.memory_rows import check_memory_rows

log = logging.getLogger(__name__)


def train(cfg: DictConfig, run: RunFolder) -> float | None:
    """Train the student in the folder of a run; go on where a run of the same settings stopped there.

    Args:
        cfg: the composed configuration.
        run: folder of the run.

    Returns:
        The student's metric (`monitor`).

    Raises:
        ConfigError: the settings cannot work, or the folder holds a run of other ones.
    """

    def work() -> float | None:
        data = build.data(cfg)
        teacher = build.teacher(cfg) if build.needs_teacher(cfg) else None
        last = run.last_checkpoint if run.last_checkpoint.exists() else None
        student = build.student(cfg, teacher, data, last)  # pruned, where `pruning` says so
        return fit_and_report(cfg, run, data, student, teacher_of_losses(cfg, teacher))

    return run.run_or_load(cfg, work)


def fit_and_report(
    cfg: DictConfig, run: RunFolder, data: DataModule, student: FeatureExtractor, teacher: FeatureExtractor | None
) -> float | None:
    """Fit, restore the best weights, measure, export, report: stages, each recorded when it is done.

    A run that was stopped goes on with the first stage that is not recorded.

    Args:
        cfg: the composed configuration.
        run: folder of the run.
        data: the data module.
        student: the net that trains.
        teacher: what the losses read as `teacher`; None trains without one.

    Returns:
        The metric (`monitor`) of the net that was trained.

    Raises:
        ConfigError: the settings cannot work, or trained weights are missing in a run that goes on.
        RuntimeError: the file of the weights holds others than were measured.
    """
    seed_everything(cfg.seed, verbose=False)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    digest = None if teacher is None else identity.weights(teacher.net)  # as it was loaded: not folded, not cast
    module = build.distiller(cfg, student, teacher, data.example())
    check_memory_rows(module.terms, data)
    if teacher is not None:
        check_views(teacher.net, data.train)
    trainer = build.trainer(cfg, run)
    check_metrics(cfg, module, data, trainer.callbacks)

    resumed = run.is_done("train")
    fitted = run.stage("train", lambda: fit(run, trainer, module, data))
    best = run.has_best() and cfg.task.get("weights", "best") == "best"
    restore(run, module, best, required=resumed)
    save_weights(run, module)
    log.info("trained %d steps; measuring the %s weights", fitted["steps"], "best" if best else "last")
    measured = run.stage("measure", lambda: measure(cfg, run, module, data))
    metrics = measured["metrics"]
    result: dict[str, Any] = {
        "scale": cfg.scale,
        "seed": cfg.seed,
        "monitor": cfg.monitor,
        "score": metrics[cfg.monitor],
        **measured,
        **fitted,
        "seconds": run.seconds,
        "weights": measured_weights(cfg, "best" if best else "last"),
        "protocols": protocols(dict(module.metrics.items())),
        "data": data_pools(cfg, data),
        "class_names": list(cfg.data.get("class_names") or []),
        **costs.static(student.net, student.one_sample(data.example(1))),
    }
    if digest is not None:
        result["teacher_sha256"] = digest
    if is_first():
        require_saved(run, module)
        write_json(run.metrics_file, result)
        result |= export(cfg, run, module, data, {cfg.monitor: result["score"]}, digest)
        write_json(run.metrics_file, result)
        run.stage("report", lambda: report(cfg, run, trainer, module, data, result))
        require_saved(run, module)
        log.info("%s %.4f, %.2f M parameters: %s", cfg.monitor, result["score"], result["parameters"] / 1e6, run.path)
    return result["score"]


def measure(cfg: DictConfig, run: RunFolder, module: Distiller, data: DataModule) -> dict[str, Any]:
    """The student's `metrics` on the validation set, and `constant_level`, the `monitor` of a constant prediction.

    Args:
        cfg: the composed configuration.
        run: folder of the run.
        module: holds the student and the metrics.
        data: the data module.

    Returns:
        The two by name; `constant_level` is None where no metric knows it.

    Raises:
        ConfigError: nothing was measured, or not the monitored metric.
    """
    metrics = validate(cfg, run, module, data)
    return {"metrics": metrics, "constant_level": constant_level(module.metrics.values(), cfg.monitor)}


def fit(run: RunFolder, trainer: Any, module: Distiller, data: DataModule) -> dict[str, Any]:
    """Train from the last checkpoint, or from the start.

    Args:
        run: folder of the run; the untrained weights are written there, once.
        trainer: the Lightning Trainer.
        module: what trains, changed in place.
        data: the data module.

    Returns:
        `steps`, the number of optimizer steps, and what the callbacks have to report.

    Raises:
        ConfigError: no step was trained.
    """
    untrained = run.weights(module.role, untrained=True)
    if is_first() and not untrained.exists():
        module.student.save(untrained)
    resumed = run.last_checkpoint.exists()
    if resumed:
        log.info("going on from %s", run.last_checkpoint)
    trainer.fit(module, data, ckpt_path=str(run.last_checkpoint) if resumed else None, weights_only=True)
    if not trainer.global_step:
        raise ConfigError(
            "trainer: no step was trained; it was stopped at once: trainer.limit_train_batches, trainer.max_time, "
            "or a callback that sets should_stop"
        )
    result: dict[str, Any] = {"steps": trainer.global_step}
    for callback in trainer.callbacks:
        result |= getattr(callback, "result", {})
    return result


def restore(run: RunFolder, module: Distiller, best: bool, required: bool = False) -> None:
    """Put the weights of the best checkpoint by the metric into the module, or those of the last one.

    Args:
        run: folder of the run.
        module: gets the weights, as float32.
        best: whether it is the best checkpoint, and not the last one.
        required: whether the checkpoint must be there; else the module keeps its weights without one.

    Raises:
        ConfigError: the checkpoint is required and missing.
    """
    module.float()  # trainer.precision=bf16-true has cast it; no value changes
    file = run.best_checkpoint if best else run.last_checkpoint
    if required and not file.exists():
        raise ConfigError(f"resume: {file} is missing, which holds the trained weights; start again in another folder")
    if file.exists():
        checkpoint = read_checkpoint(file, run.checkpoints)
        module.on_load_checkpoint(checkpoint)  # a pruned student gets the widths of the checkpoint
        module.load_state_dict(checkpoint["state_dict"])


def save_weights(run: RunFolder, module: Distiller) -> None:
    """Write `<role>.safetensors`: the net alone, without Lightning or this package.

    Args:
        run: folder of the run.
        module: holds the net and its role, `student` or `teacher`.
    """
    if is_first():
        module.student.save(run.weights(module.role))


def require_saved(run: RunFolder, module: Distiller) -> None:
    """What is measured, exported and reported are the weights of the file.

    Args:
        run: folder of the run, with the file.
        module: holds the net.

    Raises:
        RuntimeError: a callback or a later step has changed them.
    """
    file = run.weights(module.role)
    saved, held = checkpoints.read(file, f"{module.role}.checkpoint"), module.net.state_dict()
    changed = [name for name in held if name not in saved or not torch.equal(held[name].cpu(), saved[name])]
    if changed or saved.keys() - held.keys():
        raise RuntimeError(f"{file} holds other weights than were measured: {', '.join(changed[:3])}")


def export(
    cfg: DictConfig,
    run: RunFolder,
    module: Distiller,
    data: DataModule,
    scores: dict[str, float],
    teacher_sha256: str | None,
) -> dict[str, Any]:
    """What `export` asks for; a run whose export failed tries it again without training again.

    Args:
        cfg: the composed configuration.
        run: folder of the run, where the files are written.
        module: holds the student.
        data: the data module.
        scores: metric to its value, for the metadata of the file.
        teacher_sha256: digest of the teacher, likewise; None without one.

    Returns:
        The sizes and differences of the files; empty without an export.
    """
    exporter = build.exporter(cfg)
    if exporter is None:
        return {}
    return run.stage("export", lambda: exporter.export(module, data, run.path, scores, teacher_sha256))


def report(
    cfg: DictConfig, run: RunFolder, trainer: Any, module: Distiller, data: DataModule, result: dict[str, Any]
) -> dict[str, Any]:
    """Write pictures and `report.md`, and tell the loggers settings and score.

    Args:
        cfg: the composed configuration.
        run: folder of the run, where the files are written.
        trainer: the Lightning Trainer; its callbacks draw the pictures.
        module: holds the nets.
        data: the data module.
        result: content of `metrics.json`.

    Returns:
        `files`, the names of those that are there.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, ScheduledVisualizer):
            callback.save(module, data, run.path)
    write_text(run.path / "report.md", run_page(cfg, result, run.path))
    log_hyperparameters(cfg, trainer.loggers, result)
    return {"files": [name for name in ("report.md", "pictures.png") if (run.path / name).is_file()]}


def log_hyperparameters(cfg: DictConfig, loggers: list[Any], result: dict[str, Any]) -> None:
    """The settings that a sweep varies, for every logger; the score is the last value of the validation curve.

    Args:
        cfg: the composed configuration.
        loggers: Lightning loggers; each is told that the run succeeded.
        result: content of `metrics.json`; `metrics` and `steps` are read.
    """
    params = {
        "kd.enabled": "yes" if cfg.kd.enabled else "no",
        "kd.temperature": cfg.kd.temperature,
        "kd.alpha": cfg.kd.alpha if cfg.kd.alpha is not None else "weights",
        "seed": cfg.seed,
        "optimizer.lr": OmegaConf.select(cfg, "optimizer.lr"),
        **{f"loss.{name}.weight": node.weight for name, node in cfg.loss.items()},
    }
    measured = {f"val/{name}": value for name, value in result["metrics"].items()}
    for logger in loggers:
        logger.log_hyperparams(params)
        logger.log_metrics(measured, step=result["steps"])
        logger.finalize("success")
