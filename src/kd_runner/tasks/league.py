"""task=league: which distillation method helps on this task? Each of them against the student without, over seeds."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from omegaconf import DictConfig

from kd_runner.config import build, methods
from kd_runner.distillation.loss_terms import weighted_total
from kd_runner.distillation.module import Distiller
from kd_runner.errors import ConfigError
from kd_runner.report import league_page
from kd_runner.report.comparison import summarize
from kd_runner.report.statistics import estimate
from kd_runner.runtime.ranks import is_first
from kd_runner.runtime.run_folder import RunFolder
from kd_runner.tasks import arms
from kd_runner.tasks.check import gradient_norm
from kd_runner.tasks.compare import check_same_start
from kd_runner.tasks.evaluate import measure
from kd_runner.tasks.train import restore, train

log = logging.getLogger(__name__)

CONTROL = "undistilled"


def league(cfg: DictConfig, run: RunFolder) -> float | None:
    """Train the student by every method of `methods` and without any, with every seed, and report.

    A league that was stopped continues with what is missing, and one that ended takes more methods or seeds. A method
    whose training fails is reported as such, and the others go on.

    Args:
        cfg: the composed configuration.
        run: where the folders of the trainings and the report are written.

    Returns:
        The monitored metric of the best method, mean over the seeds.

    Raises:
        ConfigError: a method that there is not, or that cannot work, found before anything trains; or the training
            without a method failed.
    """
    return run.run_or_load(cfg, lambda: _league(cfg, run.path), extendable_key=("seeds", "methods"))


def _league(cfg: DictConfig, folder: Path) -> float | None:
    chosen = _methods(cfg)
    calls = _plan(cfg, chosen, folder)
    attempts = [(_attempt, *calls[method.name][i]) for i in range(len(cfg.seeds)) for method in chosen]
    arms.run_all(cfg, calls[CONTROL], attempts)
    data, teacher = build.data(cfg), build.teacher(cfg)
    teacher_metrics = measure(cfg, folder, teacher, data)  # every process takes its share
    if not is_first():
        return None
    failed = {name: error for name in calls if (error := _error(calls[name])) is not None}
    if CONTROL in failed:
        raise ConfigError(f"{CONTROL}: {failed[CONTROL]}")
    ended = {name: calls_of_arm for name, calls_of_arm in calls.items() if name not in failed}
    for i in range(len(cfg.seeds)):
        check_same_start([calls_of_arm[i][1] for calls_of_arm in ended.values()])
    results = {name: arms.results(calls_of_arm) for name, calls_of_arm in ended.items()}
    treated = [name for name in ended if name != CONTROL]
    means = {name: estimate([run["score"] for run in results[name]]).mean for name in treated or [CONTROL]}
    best = max(means, key=lambda name: means[name])
    summary = summarize(cfg.monitor, cfg.seeds, teacher_metrics, results, best, [CONTROL], treated)
    summary |= {
        "experiment": arms.experiment_name(folder),
        "control": CONTROL,
        "methods": {
            method.name: {
                "losses": {str(name): node.weight for name, node in calls[method.name][0][0].loss.items()},
                "settings": method.settings,
                "failed": failed.get(method.name),
                "gradient_share": None if method.name in failed else _gradient_shares(*ended[method.name][0]),
            }
            for method in chosen
        },
        "side_by_side": arms.num_workers(cfg, len(calls) * len(cfg.seeds)) > 1,
    }
    league_page.write(folder, summary)
    arms.finish(folder, summary)
    return float(summary["score"])


def _methods(cfg: DictConfig) -> list[methods.Method]:
    """The methods of the configuration.

    Raises:
        ConfigError: no method, one twice, or one that there is not.
    """
    names = [str(name) for name in cfg.methods]
    if not names:
        raise ConfigError("methods=[]: name at least one, e.g. methods=[kl_logits,dkd]")
    for name in names:
        if names.count(name) > 1 or name == CONTROL:
            raise ConfigError(f"methods=[{','.join(names)}]: {name!r} is there already; name each method once")
    return [methods.find(name) for name in names]


def _plan(cfg: DictConfig, chosen: list[methods.Method], folder: Path) -> dict[str, list[arms.Call]]:
    """The control and every method to configuration and folder for every seed; all is checked before any trains."""
    arms.check_seeds(cfg)
    kept = methods.task_losses(cfg)
    calls = {CONTROL: _calls(cfg, CONTROL, {"kd.enabled": False}, folder)}
    for method in chosen:
        own = methods.configuration(method, kept)
        # The weights as they are: a distribution between task and distillation is a method's own.
        calls[method.name] = _calls(own, method.name, {"kd.alpha": None, **method.settings}, folder)
    for name, calls_of_arm in calls.items():
        try:
            arms.check_arm(calls_of_arm[0][0], name)
        except ConfigError as error:
            raise ConfigError(f"methods: {name}: {error}") from error
    return calls


def _calls(cfg: DictConfig, name: str, settings: dict[str, Any], folder: Path) -> list[arms.Call]:
    return [
        (arms.arm_config(cfg, seed, f"method/{name}.yaml: set", settings), folder / f"seed{seed}_{name}")
        for seed in cfg.seeds
    ]


def _attempt(cfg: DictConfig, folder: Path) -> None:
    """Train; a method that fails is recorded, and the others go on."""
    run = RunFolder(folder)
    with arms.named_log(folder.name), run.lock(), run.log_to_file():
        try:
            train(cfg, run)
        except ConfigError as error:
            run.fail(str(error))
            log.warning("failed: %s", error)


def _error(calls: list[arms.Call]) -> str | None:
    """Why a method has no score: the error of its first run that did not end."""
    for _, folder in calls:
        run = RunFolder(folder)
        if not run.is_ended():
            return f"{folder.name}: {run.read_status().get('error') or 'did not end'}"
    return None


def _gradient_shares(cfg: DictConfig, folder: Path) -> dict[str, float]:
    """Gradient share of distillation on one batch, before and after the training of a run."""
    data, run = build.data(cfg), RunFolder(folder)
    teacher = build.teacher(cfg)
    student = build.student(cfg, teacher, data)
    seed_everything(cfg.seed, verbose=False)
    module = build.distiller(cfg, student, teacher, data.example())
    batch = data.example(cfg.data.batch_size)
    before = gradient_share(module, batch)
    restore(run, module, best=False)
    return {"start": before, "end": gradient_share(module, batch)}


def gradient_share(module: Distiller, batch: Any) -> float:
    """Norm of the gradient of the weighted distillation terms at the student, over that plus the task terms' norm.

    Args:
        module: holds student, teacher and losses; is in training mode afterwards.
        batch: a collated training batch.

    Returns:
        A fraction in [0, 1]; 0 where both norms are 0.
    """
    values = module.train().loss_values(module.sources(batch, module.loss_inputs))
    norms = []
    for uses_teacher in (True, False):
        terms = [term for term in module.terms if term.uses_teacher == uses_teacher]
        norms.append(gradient_norm(weighted_total(terms, values, module.alpha), module.net) if terms else 0.0)
    return norms[0] / sum(norms) if any(norms) else 0.0
