"""What fails only late in a run, tried before it: metric names, an optimizer step, pictures, the export."""

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, open_dict

from kd_runner.callbacks.scheduled_visualizer import ScheduledVisualizer
from kd_runner.config import build
from kd_runner.config.instantiation import instantiate_checked
from kd_runner.data.module import DataModule
from kd_runner.distillation.metric_results import checked_result
from kd_runner.distillation.module import Distiller
from kd_runner.distillation.teacher_cache.callback import check_fixed
from kd_runner.errors import ConfigError, nearest
from kd_runner.runtime.run_folder import RunFolder


def check_metrics(cfg: DictConfig, module: Distiller, data: DataModule, callbacks: list[Any]) -> list[str]:
    """Compute every metric on one validation sample, and look up the names that are monitored.

    Args:
        cfg: the composed configuration.
        module: holds the metrics and the nets that they read; the metrics keep their state.
        data: the data module, whose first validation sample is read.
        callbacks: of the trainer; those with a `monitor` read a metric.

    Returns:
        Names of all results.

    Raises:
        ConfigError: there is no validation sample, a metric cannot read its inputs or work with them, or a monitored
            name is no metric.
    """
    if not len(data.val):
        raise ConfigError("data.val: no samples")
    training = module.training
    module.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        sources = module.sources(data.collate([data.val[0]]), module.metric_inputs)
        arguments = module.metric_inputs.resolve(sources)
        names: list[str] = []
        metric: Any
        for name, metric in module.metrics.items():
            metric = copy.deepcopy(metric)
            with _named(f"metric.{name}"):
                metric.update(**arguments[name])
                result = metric.compute()
            for own in checked_result(name, result):
                if own in names:
                    raise ConfigError(f"metric.{name}: another metric is called {own!r} too")
                names.append(own)
    module.train(training)
    if cfg.monitor not in names:
        raise ConfigError(f"monitor={cfg.monitor}: no metric has this name.{nearest(cfg.monitor, names)}")
    logged = [f"val/{name}" for name in names]
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in (*logged, "loss"):
            raise ConfigError(
                f"callbacks: {type(callback).__name__} monitors {monitor!r}, which is not logged."
                f"{nearest(monitor, logged)}"
            )
    return names


def one_step(cfg: DictConfig, module: Distiller, data: DataModule) -> None:
    """Try once what a run does, with its trainer, precision and callbacks, in one process and a temporary folder.

    One optimizer step, one validation batch, the pictures, a checkpoint and the export. The module's weights change.

    Args:
        cfg: the composed configuration; it is not changed.
        module: what trains.
        data: the data module.

    Raises:
        ConfigError: what a user can fix.
    """
    own = cfg.copy()
    own.logger, own.kd.teacher_cache.enabled = None, False
    with open_dict(own):
        own.trainer.update({"limit_val_batches": 1, "devices": 1, "num_nodes": 1, "strategy": "auto"})
    with tempfile.TemporaryDirectory(prefix="kd_runner_check_") as name:
        folder = Path(name)
        with _named("trainer", (MisconfigurationException, TypeError)):
            trainer = build.trainer(own, RunFolder(folder))
            trainer.callbacks.append(_StopAfterOneStep())
        names = check_metrics(cfg, module, data, trainer.callbacks)
        if cfg.get("logger"):
            instantiate_checked(cfg.logger, "logger", _partial_=True)  # is the package there?
        if cfg.kd.teacher_cache.enabled and module.teacher is not None:
            check_fixed(data.train, list(module.teacher.inputs.values()), cfg.kd.teacher_cache.views)
        with _named("trainer", (MisconfigurationException,)):
            trainer.fit(module, data)
            trainer.validate(module, data, verbose=False)
            trainer.save_checkpoint(folder / "checkpoint.ckpt")
        for callback in trainer.callbacks:
            if isinstance(callback, ScheduledVisualizer):
                with _named(f"callbacks.{_key(cfg, callback)}"):
                    callback.save(module, data, folder)
        _dry_export(cfg, module, data, folder, names)


class _StopAfterOneStep(Callback):
    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        trainer.should_stop = trainer.global_step > 0


def _dry_export(cfg: DictConfig, module: Distiller, data: DataModule, folder: Path, names: list[str]) -> None:
    """The export without its tolerances, which an untrained net may miss, and without INT8, which takes minutes."""
    exporter = build.exporter(cfg)
    if exporter is None:
        return
    if getattr(exporter, "int8", False):
        if exporter.monitor not in names:
            raise ConfigError(
                f"export.monitor={exporter.monitor}: no metric has this name.{nearest(exporter.monitor, names)}"
            )
        exporter.int8 = False
    exporter.tolerance, exporter.agreement = float("inf"), 0.0
    with _named("export"):
        exporter.export(module, data, folder, {})


@contextmanager
def _named(key: str, kinds: tuple[type[Exception], ...] = (Exception,)) -> Iterator[None]:
    """Errors of these kinds as a `ConfigError` that starts with the key."""
    try:
        yield
    except ConfigError:
        raise
    except kinds as error:
        reason = " ".join(str(error).split())[:400]
        if not isinstance(error, ValueError | MisconfigurationException):
            reason = f"{type(error).__name__}: {reason}"
        raise ConfigError(f"{key}: {reason}") from error


def _key(cfg: DictConfig, callback: Callback) -> str:
    """The name of a callback in the configuration."""
    target = type(callback).__name__
    return next((str(n) for n, node in cfg.callbacks.items() if str(node._target_).endswith(f".{target}")), target)
