"""task=assistant_chain: teacher, assistant, student, each taught by the one before it.

Source: Mirzadeh et al. 2020, Improved Knowledge Distillation via Teacher Assistant.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_runner.config import build
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.errors import ConfigError
from kd_runner.profiling import costs
from kd_runner.report import chain_page
from kd_runner.report.comparison import summarize
from kd_runner.runtime.ranks import is_first
from kd_runner.runtime.run_folder import RunFolder
from kd_runner.tasks import arms
from kd_runner.tasks.evaluate import measure

DIRECT = "direct"


def assistant_chain(cfg: DictConfig, run: RunFolder) -> float | None:
    """Run every stage of `task.stages` with every seed, each in a folder of its own, and report.

    A chain that was stopped continues with what is missing, and one that ended takes more seeds.

    Args:
        cfg: the composed configuration.
        run: where the stages' folders and the report are written.

    Returns:
        The monitored metric of the last stage, mean over the seeds.

    Raises:
        ConfigError: a stage cannot work, found before the first one trains.
    """
    return run.run_or_load(cfg, lambda: _chain(cfg, run.path), extendable_key="seeds")


def _chain(cfg: DictConfig, folder: Path) -> float | None:
    arms.check_seeds(cfg)
    plans = [plan(cfg, folder, seed) for seed in cfg.seeds]
    calls = {name: [of_seed[name] for of_seed in plans] for name in plans[0]}
    for name, calls_of_stage in calls.items():
        arms.check_arm(calls_of_stage[0][0], f"task.stages.{name}")
    first, *later = stages(cfg)
    # The first stage and the directly taught student depend on no other stage.
    arms.run_all(cfg, [*calls[first], *calls.get(DIRECT, [])])
    for name in later:
        arms.run_all(cfg, calls[name])
    teacher, data = build.teacher(cfg), build.data(cfg)
    teacher_metrics = measure(cfg, folder, teacher, data)  # every process takes its share
    if not is_first():
        return None
    results = {name: arms.results(calls_of_stage) for name, calls_of_stage in calls.items()}
    last = list(stages(cfg))[-1]
    controls = [DIRECT] if DIRECT in results else []
    summary = summarize(cfg.monitor, cfg.seeds, teacher_metrics, results, last, controls, [last])
    nets = {"teacher": teacher, **{name: build.trained(*calls_of_stage[0]) for name, calls_of_stage in calls.items()}}
    summary |= {
        "experiment": arms.experiment_name(folder),
        "stages": list(stages(cfg)),
        "costs": _costs(nets, data.example(1)),
    }
    chain_page.write(folder, summary)
    arms.finish(folder, summary)
    return float(summary["score"])


def stages(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """Stage to the settings in which it differs from the experiment, in order.

    Args:
        cfg: the composed configuration.

    Returns:
        Name of each stage to its changes, `a.b.c` to value; the first stage trains first.

    Raises:
        ConfigError: there are fewer than two, or one has the name of another run of the chain.
    """
    named: Any = OmegaConf.to_container(cfg.task.stages)
    settings: dict[str, dict[str, Any]] = {str(name): changes or {} for name, changes in named.items()}
    if len(settings) < 2:
        raise ConfigError("task.stages: a chain has two stages at least, e.g. assistant and student")
    if taken := {DIRECT, "teacher"} & settings.keys():
        raise ConfigError(f"task.stages.{min(taken)}: another run of the chain has this name")
    return settings


def plan(cfg: DictConfig, folder: Path, seed: int) -> dict[str, arms.Call]:
    """Configuration and folder of every stage with one seed, in order; then of the directly taught student.

    Args:
        cfg: the composed configuration; it is not changed.
        folder: of the chain; every run gets a folder in it.
        seed: seed of all stages.

    Returns:
        Name of each stage to its configuration and folder; with `task.direct` also `direct`, the settings of the last
        stage under the experiment's own teacher.

    Raises:
        ConfigError: the stages are not valid, or a setting of one is no key or has no effect.
    """
    calls: dict[str, arms.Call] = {}
    base, settings = cfg, dict[str, Any]()
    for name, settings in stages(cfg).items():
        own = arms.arm_config(base, seed, f"task.stages.{name}", settings)
        calls[name] = own, folder / f"seed{seed}_{name}"
        base = cfg.copy()
        use_student_as_teacher(base, own.student, calls[name][1] / "student.safetensors")
    if cfg.task.direct:
        calls[DIRECT] = arms.arm_config(cfg, seed, "task.stages", settings), folder / f"seed{seed}_{DIRECT}"
    return calls


def use_student_as_teacher(cfg: DictConfig, student: DictConfig, weights: Path) -> None:
    """Make the `student` of one stage the `teacher` of the next stage's configuration.

    Args:
        cfg: configuration of the next stage, changed in place.
        student: section `student` of the stage before it.
        weights: file of the weights that the stage before it writes.
    """
    for key in ("net", "inputs", "train_inputs", "features", "channels_last"):
        cfg.teacher[key] = student[key]
    build.use_weights(cfg.teacher, weights)


def _costs(nets: Mapping[str, FeatureExtractor], batch: Any) -> dict[str, Any]:
    """Size and speed of every net, timed in turns in one process."""
    calls = {name: costs.torch_call(net.net, net.one_sample(batch)) for name, net in nets.items()}
    times = costs.latency(calls)
    return {
        name: {**costs.static(net.net, net.one_sample(batch)), "torch_ms": times[name]} for name, net in nets.items()
    }
