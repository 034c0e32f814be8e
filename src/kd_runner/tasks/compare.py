"""task=compare: what did distillation gain? The same student trained with and without it, over several seeds."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_runner.config import build
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.errors import ConfigError, nearest
from kd_runner.profiling import costs
from kd_runner.report import compare_page
from kd_runner.runtime import run_folder
from kd_runner.runtime.files import read_json, write_json
from kd_runner.runtime.launch import num_processes
from kd_runner.runtime.processes import in_parallel
from kd_runner.tasks.evaluate import measure
from kd_runner.tasks.train import train

log = logging.getLogger(__name__)


def compare(cfg: DictConfig, folder: Path) -> float | None:
    """Run every arm of `task.arms` with every seed, each in a folder of its own, and report.

    A run that was stopped goes on with what is missing, and one that ended takes more seeds. Returns the metric of the
    last measured arm, mean over the seeds.
    """
    return run_folder.run_or_load(folder, cfg, lambda: _compare(cfg, folder), extendable_key="seeds")


def _compare(cfg: DictConfig, folder: Path) -> float | None:
    data = build.data(cfg)
    places = {(seed, name): folder / f"seed{seed}_{name}" for seed in cfg.seeds for name in arms(cfg)}
    runs_of = [(arm(cfg, seed, f"task.arms.{at}", arms(cfg)[at]), place) for (seed, at), place in places.items()]
    run_all(
        cfg, runs_of, [(_export_teacher, run_folder.resolved(cfg), folder / "teacher")] if cfg.get("export") else []
    )
    teacher = build.teacher(cfg)
    teacher_metrics = measure(cfg, folder, teacher, data)  # every process takes its share
    if not run_folder.is_first():
        return None
    for seed in cfg.seeds:
        _same_start([places[seed, name] for name in arms(cfg)])
    runs = {name: [_result(places[seed, name]) for seed in cfg.seeds] for name in arms(cfg)}
    nets = {"teacher": teacher, "student": build.trained(cfg, places[cfg.seeds[0], distilled(cfg)])}
    summary = {
        "scale": cfg.scale,
        "monitor": cfg.monitor,
        "seeds": list(cfg.seeds),
        "teacher": teacher_metrics,
        "arms": {name: [run["metrics"] for run in of_arm] for name, of_arm in runs.items()},
        "steps": {name: of_arm[0]["steps"] for name, of_arm in runs.items()},
        "seconds": {name: sum(run["seconds"] for run in of_arm) / len(of_arm) for name, of_arm in runs.items()},
        "costs": _costs(cfg, folder, nets, data),
        "pruning": runs[distilled(cfg)][0].get("pruning"),
    }
    summary["score"] = sum(m[cfg.monitor] for m in summary["arms"][distilled(cfg)]) / len(cfg.seeds)
    compare_page.write(cfg, summary, folder)
    write_json(folder / "metrics.json", summary)
    log.info("%s\n%s", (folder / "report.md").read_text().split("## Per class")[0], folder / "report.md")
    return summary["score"]


def arms(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """Arms in order, the control first; without those that are null or equal another (nothing unlabeled to leave
    out).
    """
    found: dict[str, dict[str, Any]] = {}
    for name, settings in OmegaConf.to_container(cfg.task.arms).items():  # type: ignore[union-attr]
        if settings is None:
            continue
        changing = {key: value for key, value in settings.items() if OmegaConf.select(cfg, key) != value}
        if not settings or changing:
            found[str(name)] = changing
    if len(found) < 2:
        raise ConfigError("task.arms: two arms that differ are needed, the control first")
    return found


def distilled(cfg: DictConfig) -> str:
    """The arm that stands for the experiment: the one that changes nothing, else the second."""
    return next((name for name, settings in arms(cfg).items() if not settings), list(arms(cfg))[1])


def arm(cfg: DictConfig, seed: int, named: str, settings: dict[str, Any]) -> DictConfig:
    """The configuration of one arm: no export of its own, a seed, and what differs (`named`: for messages)."""
    own = cfg.copy()
    own.seed, own.seeds, own.export, own.resume = seed, [seed], None, None
    own.run = OmegaConf.create({"_target_": "kd_runner.tasks.train.train"})
    for key, value in settings.items():
        try:
            OmegaConf.update(own, key, value, merge=False)
        except OmegaConfBaseException:
            parent = OmegaConf.select(own, key.rpartition(".")[0] or "") or own
            hint = nearest(key.rpartition(".")[2], map(str, parent))
            raise ConfigError(f"{named}: no key {key!r} in the configuration.{hint}") from None
    return run_folder.resolved(own)


def run_all(cfg: DictConfig, runs: list[tuple[DictConfig, Path]], then: Iterable[tuple[Any, ...]] = ()) -> None:
    """Distil by every configuration in its folder, `task.workers` at a time.

    Args:
        then: function and arguments of what else is to be done, as soon as a process is free.
    """
    calls = [*((_run, *one) for one in runs), *then]
    if (workers := _workers(cfg, len(runs))) > 1:
        log.info("%d runs, %d at a time", len(runs), workers)
        list(in_parallel(_call, calls, workers))
    else:
        for call in calls:
            _call(*call)


def _call(function: Callable[..., None], *arguments: Any) -> None:
    function(*arguments)


def _workers(cfg: DictConfig, runs: int) -> int:
    """Runs at a time: what is asked for, else one per core where a run is one CPU process."""
    if cfg.task.workers is not None:
        return cfg.task.workers
    alone = cfg.trainer.accelerator == "cpu" and num_processes(cfg) == 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(runs, cores) if alone else 1


def _run(cfg: DictConfig, place: Path) -> None:
    """One arm and seed."""
    with _named(place), run_folder.lock(place):
        train(cfg, place)


def _export_teacher(cfg: DictConfig, place: Path) -> None:
    """The teacher's ONNX file, and in `export.json` what was found of it."""
    if run_folder.is_first():
        with _named(place):
            module = build.evaluator(cfg, build.teacher(cfg))
            write_json(
                place / "export.json",
                build.instantiate_checked(cfg.export, "export").export(module, build.data(cfg), place),
            )


@contextlib.contextmanager
def _named(place: Path) -> Iterator[None]:
    """Lines of the log under the folder's name, since several may be at work, and in a log of its own."""
    place.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    shown = {handler: handler.formatter for handler in root.handlers}
    own = logging.FileHandler(place / "run.log")
    own.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for handler in shown:
        handler.setFormatter(logging.Formatter(f"{place.name}: %(message)s"))
    root.addHandler(own)
    try:
        yield
    finally:
        root.removeHandler(own)
        own.close()
        for handler, formatter in shown.items():
            handler.setFormatter(formatter)


def _result(place: Path) -> dict[str, Any]:
    return read_json(place / "metrics.json")


def _same_start(places: list[Path]) -> None:
    """The comparison is one of equals only where the arms started from the same weights."""
    digests = {hashlib.sha256((place / "student_untrained.safetensors").read_bytes()).hexdigest() for place in places}
    assert len(digests) == 1, f"different initial weights in {places}"


def _costs(cfg: DictConfig, folder: Path, nets: dict[str, FeatureExtractor], data: Any) -> dict[str, Any]:
    """Size and speed of teacher and student, side by side in one run."""
    batch = data.example(1)
    found = {role: costs.static(net.net, net.one_sample(batch)) for role, net in nets.items()}
    calls = {f"{role} torch": costs.torch_call(net.net, net.one_sample(batch)) for role, net in nets.items()}
    if cfg.get("export"):
        from kd_runner.export import onnx

        exporter = build.instantiate_checked(cfg.export, "export")
        found["teacher"] |= read_json(folder / "teacher" / "export.json")
        found["student"] |= exporter.export(build.evaluator(cfg, nets["student"]), data, folder)
        for role, place in (("teacher", folder / "teacher"), ("student", folder)):
            calls[f"{role} onnxruntime"] = onnx.call(place / "model.onnx", exporter.arguments(nets[role], data))
    for name, milliseconds in costs.latency(calls).items():
        role, engine = name.split(" ")
        found[role][f"{engine}_ms"] = milliseconds
    return found
