"""task=compare: what did distillation gain? The same student trained with and without it, over several seeds."""

import hashlib
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from kd_runner.config import build
from kd_runner.data.module import DataModule
from kd_runner.distillation import checkpoints
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.errors import ConfigError
from kd_runner.profiling import costs
from kd_runner.report import compare_page
from kd_runner.report.comparison import summarize
from kd_runner.runtime.files import read_mapping, write_json
from kd_runner.runtime.ranks import is_first
from kd_runner.runtime.run_folder import RunFolder, resolved
from kd_runner.tasks import arms, equal_seconds
from kd_runner.tasks.evaluate import measure

log = logging.getLogger(__name__)


def compare(cfg: DictConfig, run: RunFolder) -> float | None:
    """Run every arm of `task.arms` with every seed, each in a folder of its own, and report.

    A comparison that was stopped continues with what is missing, and one that ended takes more seeds.

    Args:
        cfg: the composed configuration.
        run: where the arms' folders and the report are written.

    Returns:
        The monitored metric of the arm that stands for the experiment, mean over the seeds.

    Raises:
        ConfigError: an arm cannot work, found before the first one trains.
    """
    return run.run_or_load(cfg, lambda: _compare(cfg, run.path), extendable_key="seeds")


def _compare(cfg: DictConfig, folder: Path) -> float | None:
    calls = _plan(cfg, folder)
    exports = [(_export_teacher, resolved(cfg), folder / "teacher")] if cfg.get("export") else []
    dependent = equal_seconds.sources(arm_settings(cfg))
    first = [calls[name][i] for i in range(len(cfg.seeds)) for name in calls if name not in dependent]
    later = [partial(_as_long, calls, name, i, *dependent[name]) for i in range(len(cfg.seeds)) for name in dependent]
    arms.run_all(cfg, first, exports, later)
    data, teacher = build.data(cfg), build.teacher(cfg)
    teacher_metrics = measure(cfg, folder, teacher, data)  # every process takes its share
    if not is_first():
        return None
    for i in range(len(cfg.seeds)):
        check_same_start([calls[name][i][1] for name in calls])
    results = {name: arms.results(calls_of_arm) for name, calls_of_arm in calls.items()}
    settings, main_arm = arm_settings(cfg), distilled_arm(cfg)
    controls = control_arms(settings)
    nulls = [name for name, own in settings.items() if own.get("kd.null_teacher") is not None]
    treated = [name for name in calls if name not in (*controls, *nulls)]
    summary = summarize(cfg.monitor, cfg.seeds, teacher_metrics, results, main_arm, controls, treated, nulls)
    nets = {"teacher": teacher, "student": build.trained(cfg, calls[main_arm][0][1])}
    summary |= {
        "experiment": arms.experiment_name(folder),
        "costs": _costs(cfg, folder, nets, data, teacher_metrics, results[main_arm][0]),
        "pruning": results[main_arm][0].get("pruning"),
        "seconds_of": {name: longer for name, (longer, _) in equal_seconds.sources(settings).items()},
        "side_by_side": arms.num_workers(cfg, len(calls) * len(cfg.seeds)) > 1,
    }
    compare_page.write(folder, summary)
    arms.finish(folder, summary)
    return float(summary["score"])


def _as_long(calls: Mapping[str, list[arms.Call]], name: str, seed: int, longer: str, twin: str) -> arms.Call | None:
    """The training of an arm that gets the seconds of another one; None as long as those are not measured."""
    cfg, folder = calls[name][seed]
    own = equal_seconds.planned(cfg, folder, calls[longer][seed][1], calls[twin][seed][1])
    return None if own is None else (own, folder)


def _plan(cfg: DictConfig, folder: Path) -> dict[str, list[arms.Call]]:
    """Arm to configuration and folder for every seed; everything is checked before anything trains."""
    arms.check_seeds(cfg)
    calls = {
        name: [
            (arms.arm_config(cfg, seed, f"task.arms.{name}", settings), folder / f"seed{seed}_{name}")
            for seed in cfg.seeds
        ]
        for name, settings in arm_settings(cfg).items()
    }
    for name, calls_of_arm in calls.items():
        arms.check_arm(calls_of_arm[0][0], f"task.arms.{name}")
    return calls


def arm_settings(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """Arms in order, the control first, each with the settings in which it differs from the experiment.

    Arms that are null are left out, and so are those that change nothing though they should (without unlabeled data
    `distilled_same_labels` is `distilled`).

    Args:
        cfg: the composed configuration.

    Returns:
        Name of each arm to its changes, `a.b.c` to value; empty for the arm that is the experiment itself.

    Raises:
        ConfigError: fewer than two arms are left, or one that another arm needs is not.
    """
    named: Any = OmegaConf.to_container(cfg.task.arms)
    kept: dict[str, dict[str, Any]] = {}
    for name, settings in named.items():
        if settings is None:
            continue
        changes = {key: value for key, value in settings.items() if OmegaConf.select(cfg, key) != value}
        if not settings or changes:
            kept[str(name)] = changes
    if len(kept.keys() - equal_seconds.sources(kept).keys()) < 2:
        raise ConfigError("task.arms: two arms that differ are needed, the control first")
    return kept


def distilled_arm(cfg: DictConfig) -> str:
    """The arm that stands for the experiment: the one that changes nothing, else the first one that is no control.

    Args:
        cfg: the composed configuration.

    Returns:
        Name of the arm.
    """
    settings = arm_settings(cfg)
    unchanged = (name for name, changes in settings.items() if not changes)
    return next(unchanged, next(name for name in settings if name not in control_arms(settings)))


def control_arms(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Arms that the others are measured against: the first, and those like it that train for another's seconds.

    Args:
        settings: arm to the settings in which it differs from the experiment, the control first.

    Returns:
        Names of the arms.
    """
    control = next(iter(settings))
    return [control, *(name for name, (_, twin) in equal_seconds.sources(settings).items() if twin == control)]


def _export_teacher(cfg: DictConfig, folder: Path) -> None:
    """Write the teacher's ONNX file, and what its check measured as `export.json`."""
    if is_first():
        with arms.named_log(folder.name):
            module = build.evaluator(cfg, build.teacher(cfg))
            exporter = build.exporter(cfg)
            write_json(folder / "export.json", exporter.export(module, build.data(cfg), folder))


def check_same_start(folders: list[Path]) -> None:
    """Check that the arms of one seed started from the same weights.

    Args:
        folders: of the arms' runs; each holds `student_untrained.safetensors`.

    Raises:
        ConfigError: they did not, so their difference is not the distillation alone.
    """
    files = [folder / "student_untrained.safetensors" for folder in folders]
    if len({_weights_digest(file) for file in files}) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise ConfigError(f"task.arms: {names} started from different weights; an arm may not change the student's net")


def _weights_digest(file: Path) -> str:
    """SHA-256 of names, types, shapes and values; the order of a header's entries differs from file to file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoints.read(file, "task.arms").items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _costs(
    cfg: DictConfig,
    folder: Path,
    nets: Mapping[str, FeatureExtractor],
    data: DataModule,
    teacher_metrics: Mapping[str, float],
    result: Mapping[str, Any],
) -> dict[str, Any]:
    """Size and speed of teacher and student, timed in turns in one process; `result` is that of the student's run."""
    batch = data.example(1)
    measured = {role: costs.static(net.net, net.one_sample(batch)) for role, net in nets.items()}
    calls = {f"{role} torch": costs.torch_call(net.net, net.one_sample(batch)) for role, net in nets.items()}
    if cfg.get("export"):
        from kd_runner.export import deployment, onnx

        exporter = build.exporter(cfg)
        measured["teacher"] |= read_mapping(folder / "teacher" / "export.json")
        deployment.set_scores(folder / "teacher" / "model.onnx", {cfg.monitor: teacher_metrics[cfg.monitor]})
        module, score = build.evaluator(cfg, nets["student"]), {cfg.monitor: result["score"]}
        measured["student"] |= exporter.export(module, data, folder, score, result.get("teacher_sha256"))
        for role, onnx_folder in (("teacher", folder / "teacher"), ("student", folder)):
            calls[f"{role} onnxruntime"] = onnx.call(onnx_folder / "model.onnx", exporter.arguments(nets[role], data))
    for name, milliseconds in costs.latency(calls).items():
        role, engine = name.split(" ")
        measured[role][f"{engine}_ms"] = milliseconds
    return measured
