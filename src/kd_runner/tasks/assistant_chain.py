"""task=assistant_chain: teacher, assistant, student, each taught by the one before it.

Source: Mirzadeh et al. 2020, Improved Knowledge Distillation via Teacher Assistant.
"""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_runner.config import build, validate
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.errors import ConfigError
from kd_runner.profiling import costs
from kd_runner.report import chain_page
from kd_runner.report.statistics import gain, verdict
from kd_runner.runtime import run_folder
from kd_runner.runtime.files import read_json, write_json
from kd_runner.tasks.compare import arm, run_all
from kd_runner.tasks.evaluate import measure

log = logging.getLogger(__name__)

DIRECT = "direct"


def assistant_chain(cfg: DictConfig, folder: Path) -> float | None:
    """Run every stage of `task.stages` with every seed, each in a folder of its own, and report. A chain that was
    stopped goes on with what is missing, and one that ended takes more seeds. Returns the last stage's metric, mean
    over the seeds.

    Raises:
        ConfigError: a stage cannot work, found before the first one trains.
    """
    return run_folder.run_or_load(folder, cfg, lambda: _chain(cfg, folder), extendable_key="seeds")


def _chain(cfg: DictConfig, folder: Path) -> float | None:
    runs = {name: [plan(cfg, folder, seed)[name] for seed in cfg.seeds] for name in plan(cfg, folder, cfg.seeds[0])}
    for calls in runs.values():
        validate.check(calls[0][0])
    first, *later = stages(cfg)
    # Who needs no other stage's student runs first.
    run_all(cfg, [*runs[first], *runs.get(DIRECT, [])])
    for name in later:
        run_all(cfg, runs[name])
    teacher, data = build.teacher(cfg), build.data(cfg)
    measured = measure(cfg, folder, teacher, data)  # every process takes its share
    if not run_folder.is_first():
        return None
    found = {name: [read_json(place / "metrics.json") for _, place in calls] for name, calls in runs.items()}
    nets = {"teacher": teacher, **{name: build.trained(*calls[0]) for name, calls in runs.items()}}
    last = list(stages(cfg))[-1]
    summary: dict[str, Any] = {
        "scale": cfg.scale,
        "monitor": cfg.monitor,
        "seeds": list(cfg.seeds),
        "stages": list(stages(cfg)),
        "teacher": measured,
        "arms": {name: [run["metrics"] for run in of_stage] for name, of_stage in found.items()},
        "steps": {name: of_stage[0]["steps"] for name, of_stage in found.items()},
        "seconds": {name: sum(run["seconds"] for run in of_stage) / len(of_stage) for name, of_stage in found.items()},
        "costs": _costs(nets, data.example(1)),
    }
    scores = {name: [metrics[cfg.monitor] for metrics in of_stage] for name, of_stage in summary["arms"].items()}
    summary["score"] = sum(scores[last]) / len(cfg.seeds)
    if DIRECT in scores:
        difference = gain(scores[DIRECT], scores[last])
        summary["gain_over_direct"] = {
            "mean": difference.mean,
            "half_width": difference.half_width,
            "verdict": verdict(difference),
        }
    chain_page.write(folder, summary, scores)
    write_json(folder / "metrics.json", summary)
    log.info("%s\n%s", (folder / "report.md").read_text(), folder / "report.md")
    return summary["score"]


def stages(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """Stage to the settings in which it differs, in order.

    Raises:
        ConfigError: there are fewer than two, or one has the name of another run of the chain.
    """
    named: Any = OmegaConf.to_container(cfg.task.stages)
    found: dict[str, dict[str, Any]] = {str(name): settings or {} for name, settings in named.items()}
    if len(found) < 2:
        raise ConfigError("task.stages: a chain has two stages at least, e.g. assistant and student")
    if taken := {DIRECT, "teacher"} & found.keys():
        raise ConfigError(f"task.stages.{min(taken)}: another run of the chain has this name")
    return found


def plan(cfg: DictConfig, folder: Path, seed: int) -> dict[str, tuple[DictConfig, Path]]:
    """Configuration and folder of every stage with one seed, in order; then of the student taught directly."""
    found: dict[str, tuple[DictConfig, Path]] = {}
    given, settings = cfg, dict[str, Any]()
    for name, settings in stages(cfg).items():
        own = arm(given, seed, f"task.stages.{name}", settings)
        found[name] = own, folder / f"seed{seed}_{name}"
        given = cfg.copy()
        given.teacher = taught_by(own.student, found[name][1] / "student.safetensors")
    if cfg.task.direct:
        found[DIRECT] = arm(cfg, seed, "task.stages", settings), folder / f"seed{seed}_{DIRECT}"
    return found


def taught_by(student: DictConfig, weights: Path) -> DictConfig:
    """The student of one stage as the `teacher` of the next."""
    kept = {key: student[key] for key in ("net", "inputs", "train_inputs", "features", "channels_last")}
    keys = {"strip": "", "rename": {}, "drop": []}
    return OmegaConf.create({**kept, "checkpoint": str(weights), "checkpoint_keys": keys})


def _costs(nets: dict[str, FeatureExtractor], batch: Any) -> dict[str, Any]:
    """Size and speed of every net, side by side."""
    calls = {name: costs.torch_call(net.net, net.one_sample(batch)) for name, net in nets.items()}
    times = costs.latency(calls)
    return {
        name: {**costs.static(net.net, net.one_sample(batch)), "torch_ms": times[name]} for name, net in nets.items()
    }
