"""Many trainings as one task: the arms of a comparison, the stages of a chain, each in a folder of its own."""

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_runner.config import entries, unread, validate
from kd_runner.distillation.inputs import InputSpec
from kd_runner.errors import ConfigError, nearest
from kd_runner.report import gathered_page
from kd_runner.report.comparison import Summary
from kd_runner.report.grouped import group
from kd_runner.report.runs import read_folder
from kd_runner.runtime import run_names
from kd_runner.runtime.files import write_json, write_text
from kd_runner.runtime.launch import num_processes
from kd_runner.runtime.processes import in_parallel
from kd_runner.runtime.run_folder import TEMPERATURE, RunFolder, resolved
from kd_runner.tasks.train import train

log = logging.getLogger(__name__)

Call = tuple[DictConfig, Path]
"""Configuration and folder of one training."""


def arm_config(cfg: DictConfig, seed: int, key: str, settings: Mapping[str, Any]) -> DictConfig:
    """The resolved configuration of one arm with one seed; it trains, and exports nothing.

    Args:
        cfg: the composed configuration of the whole task; it is not changed.
        seed: seed of the training.
        key: where the arm stands in the configuration, for messages.
        settings: keys in which the arm differs, `a.b.c` to value.

    Returns:
        A configuration of `task=train`, without interpolations except that of the shared temperature.

    Raises:
        ConfigError: a key that the configuration does not have, or that has no effect in this arm; or `task.weights` is
            neither `last` nor `best`.
    """
    own = cfg.copy()
    own.seed, own.seeds, own.export, own.resume = seed, [seed], None, None
    own.methods = []
    if cfg.task.weights not in ("last", "best"):
        raise ConfigError(f"task.weights={cfg.task.weights}: last or best")
    train = {"_target_": "kd_runner.tasks.train.train", "weights": cfg.task.weights, "seconds_of": None}
    own.task = OmegaConf.create(train)
    for name, value in settings.items():
        try:
            OmegaConf.update(own, name, value, merge=False)
        except OmegaConfBaseException:
            parent = OmegaConf.select(own, name.rpartition(".")[0] or "") or own
            hint = nearest(name.rpartition(".")[2], map(str, parent))
            raise ConfigError(f"{key}: no key {name!r} in the configuration.{hint}") from None
    unread.check(entries.clean(own), settings, key)
    return resolved(own, keep=TEMPERATURE)


def check_seeds(cfg: DictConfig) -> None:
    """Check `seeds`.

    Args:
        cfg: the composed configuration.

    Raises:
        ConfigError: no seed, or the same one twice, which would count as two independent runs.
    """
    if not cfg.seeds:
        raise ConfigError("seeds=[]: give at least one seed, e.g. seeds=[0,1,2]")
    repeated = sorted(seed for seed, count in Counter(cfg.seeds).items() if count > 1)
    if repeated:
        raise ConfigError(f"seeds={list(cfg.seeds)}: seed {repeated[0]} is there more than once; give each seed once")


def check_arm(cfg: DictConfig, name: str) -> None:
    """Everything that can be known of an arm before any arm trains.

    Args:
        cfg: configuration of the arm, as `arm_config` makes it.
        name: where the arm stands in the configuration, for messages.

    Raises:
        ConfigError: what `validate.check` finds, or an arm that has no loss to train with.
    """
    validate.check(cfg, set_by_hand=())
    nodes = [node for node in cfg.loss.values() if node.weight != 0]
    task_losses = [node for node in nodes if "teacher" not in InputSpec(OmegaConf.to_container(node.inputs)).sources]
    if not (nodes if cfg.kd.enabled else task_losses):
        raise ConfigError(
            f"{name}: it has no loss to train with: with kd.enabled=false only losses that read no teacher.* count. "
            "Add a task loss to loss=[...], or take this arm away"
        )


def run_all(
    cfg: DictConfig,
    calls: Iterable[Call],
    then: Iterable[tuple[Any, ...]] = (),
    later: Iterable[Callable[[], Call | None]] = (),
) -> None:
    """Train by every configuration in its folder, `task.workers` at a time.

    Args:
        cfg: the composed configuration of the whole task, which says how many runs work at a time.
        calls: configuration and folder of every training that depends on no other one.
        then: (function, arguments...) of other work that is done as soon as a process is free.
        later: trainings that depend on others; None as long as those have not got far enough.

    Raises:
        RuntimeError: a training of `later` is still unknown when all others have ended.
    """
    trainings, dependent = list(calls), list(later)
    jobs: list[tuple[Any, ...]] = [*((_train, *call) for call in trainings), *then]
    workers = num_workers(cfg, len(jobs) + len(dependent))
    if workers > 1:
        log.info("%d runs, %d at a time", len(jobs) + len(dependent), workers)
        list(in_parallel(_call, jobs, workers, [partial(_later, next_call) for next_call in dependent]))
        return
    for job in jobs:
        _call(*job)
    for next_call in dependent:
        call = next_call()
        if call is None:
            raise RuntimeError("a training waits for what no other one makes known")
        _train(*call)


def _later(next_call: Callable[[], Call | None]) -> tuple[Any, ...] | None:
    call = next_call()
    return None if call is None else (_train, *call)


def _call(function: Callable[..., None], *arguments: Any) -> None:
    function(*arguments)


def num_workers(cfg: DictConfig, runs: int) -> int:
    """Runs at a time: as configured, else one per core where a run is one CPU process.

    Args:
        cfg: the composed configuration.
        runs: number of runs that are to be done.

    Returns:
        `task.workers` where it is set; else the smaller of runs and cores on the CPU, and 1 on accelerators and for
        runs of several processes.
    """
    if cfg.task.workers is not None:
        return int(cfg.task.workers)
    alone = cfg.trainer.accelerator == "cpu" and num_processes(cfg) == 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(runs, cores) if alone else 1


def _train(cfg: DictConfig, folder: Path) -> None:
    run = RunFolder(folder)
    with named_log(folder.name), run.lock(), run.log_to_file():
        train(cfg, run)


@contextlib.contextmanager
def named_log(name: str) -> Iterator[None]:
    """Prefix log lines with the run's name, since several runs may log at the same time.

    Args:
        name: the prefix.

    Yields:
        Nothing; the former format is back when the block ends.
    """
    formatters = {handler: handler.formatter for handler in logging.getLogger().handlers}
    for handler in formatters:
        handler.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    try:
        yield
    finally:
        for handler, formatter in formatters.items():
            handler.setFormatter(formatter)


def results(calls: Iterable[Call]) -> list[dict[str, Any]]:
    """`metrics.json` of every ended run.

    Args:
        calls: configuration and folder of every run.

    Returns:
        Content of each file, in the order of `calls`.

    Raises:
        ConfigError: a file is missing or broken, or lacks score, metrics or seconds.
    """
    measured = [RunFolder(folder).read_metrics() for _, folder in calls]
    for metrics, (_, folder) in zip(measured, calls):
        if missing := [key for key in ("score", "metrics", "seconds") if key not in metrics]:
            raise ConfigError(f"{folder / 'metrics.json'} is broken: it has no {missing[0]!r}")
    return measured


def finish(folder: Path, summary: Summary) -> None:
    """Write `comparison.html` and, as the last file of the task, `metrics.json`; log the report.

    Args:
        folder: of the whole task; `report.md` is there already.
        summary: content of `metrics.json`.
    """
    sections, repeated = group(read_folder(folder, summary))
    write_text(folder / "comparison.html", gathered_page.html(folder.name, sections, repeated))
    write_json(folder / "metrics.json", summary)
    log.info("%s\n%s", (folder / "report.md").read_text().split("## Per class")[0], folder / "report.md")


def experiment_name(folder: Path) -> str:
    """The chosen experiment: Hydra's word, else (called from Python) the folder above the run's.

    Args:
        folder: of the run.

    Returns:
        The name.
    """
    return run_names.experiment_name() or folder.parent.name
