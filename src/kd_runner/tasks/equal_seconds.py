"""An arm of a comparison that trains for as long as another one took (`task.seconds_of`), in more or fewer steps."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from kd_runner.errors import ConfigError, nearest
from kd_runner.runtime.run_folder import RunFolder

log = logging.getLogger(__name__)

KEY = "task.seconds_of"
# What a longer schedule changes.
STRETCHED = ("data.steps_per_epoch", "trainer.max_epochs", "trainer.max_steps", "scheduler.warmup_steps")
# Fraction of its steps that a run must have made before its seconds are projected to the end.
MEASURED_FRACTION = 0.2


def sources(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Arm with `task.seconds_of` to (the arm whose seconds it gets, the arm that is the same but for its length).

    Args:
        settings: arm to the settings in which it differs from the experiment.

    Returns:
        Name of each such arm to the names of the two others.

    Raises:
        ConfigError: one of the two is not among the arms.
    """
    pairs = {}
    for name, own in settings.items():
        if own.get(KEY) is None:
            continue
        key, longer = f"task.arms.{name}", str(own[KEY])
        plain = {other: s for other, s in settings.items() if s.get(KEY) is None}
        if longer not in plain:
            raise ConfigError(f"{key}: {KEY}={longer}: no such arm with a length of its own.{nearest(longer, plain)}")
        rest = {k: value for k, value in own.items() if k != KEY}
        twin = next((other for other, other_settings in plain.items() if other_settings == rest), None)
        if twin is None:
            raise ConfigError(f"{key}: no arm with the same settings, from which the seconds a step are taken")
        pairs[name] = longer, twin
    return pairs


def planned(cfg: DictConfig, folder: Path, longer: Path, twin: Path) -> DictConfig | None:
    """The configuration of the arm with the number of steps that it makes in the seconds of the other one.

    Seconds are measured ones, projected to the end for an arm that still trains. A run that was started keeps its plan.

    Args:
        cfg: configuration of the arm, as long as its twin.
        folder: where the arm runs.
        longer: folder of the run whose training seconds it gets.
        twin: folder of the run with the same settings, which says how long a step takes.

    Returns:
        The configuration; None as long as one of the two has not made a fifth of its steps.

    Raises:
        ConfigError: one of the two has ended, and no training seconds are recorded there.
    """
    own = cfg.copy()
    with open_dict(own):
        own.task.length_of_twin = {key: OmegaConf.select(cfg, key) for key in STRETCHED}
    if (saved := RunFolder(folder).config_file).is_file():
        before = OmegaConf.load(saved)
        for key in STRETCHED:
            if OmegaConf.select(own, key) is not None or OmegaConf.select(before, key) is not None:
                OmegaConf.update(own, key, OmegaConf.select(before, key))
        return own
    given, pace = _measured(longer), _measured(twin)
    if given is None or pace is None:
        return None
    seconds = given["seconds"] / given["steps"] * given["total_steps"]
    steps = seconds * pace["steps"] / pace["seconds"]
    stretch(own, pace["total_steps"], steps)
    log.info("%s: %.0f steps in the %.1f s (%s) of %s", folder.name, steps, seconds, given["clock"], longer.name)
    return own


def stretch(cfg: DictConfig, total_steps: int, steps: float) -> None:
    """Give a configuration another number of optimizer steps, in place: as many epochs, longer ones.

    What is counted in epochs (validation, checkpoints, stages) and the shape of the learning rate's schedule stay as
    they are in proportion.

    Args:
        cfg: configuration of one training, changed in place.
        total_steps: number of steps as it is.
        steps: number of steps as it should be; rounded so that all epochs are of one length.
    """
    factor, epochs = steps / total_steps, cfg.trainer.max_epochs
    if (last := cfg.trainer.get("max_steps", -1)) > 0:
        cfg.trainer.max_steps = max(1, round(last * factor))
        cfg.trainer.max_epochs = math.ceil(epochs * factor)
    else:
        cfg.data.steps_per_epoch = max(1, round(steps / epochs))
    if warmup := OmegaConf.select(cfg, "scheduler.warmup_steps"):
        cfg.scheduler.warmup_steps = round(warmup * factor)


def _measured(folder: Path) -> dict[str, Any] | None:
    """What a run cost until now; None before a fifth of its steps.

    Raises:
        ConfigError: the run has ended without a measurement.
    """
    run = RunFolder(folder)
    cost = run.training_cost
    if cost and cost["seconds"] > 0 and cost["steps"] >= MEASURED_FRACTION * cost["total_steps"]:
        return cost
    if run.is_ended():
        raise ConfigError(f"{folder}: no training seconds are recorded; run the comparison anew, in another folder")
    return None
