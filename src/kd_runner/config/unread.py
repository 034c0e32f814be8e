"""Settings without effect: a value that the command line, a sweep, an arm or a stage sets must be read by something.

Otherwise a sweep over it gives equal runs under different names.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_runner.errors import ConfigError
from kd_runner.runtime.run_folder import TEMPERATURE

_MANY_RUNS = (
    "kd_runner.tasks.compare.compare",
    "kd_runner.tasks.assistant_chain.assistant_chain",
    "kd_runner.tasks.league.league",
)
_TEACHER_TASK = "kd_runner.tasks.train_teacher.train_teacher"
# What the runner itself reads of `data`, and the parts that are built; all else is there to be referred to.
_DATA = {
    "root", "prepare", "train", "val", "unlabeled", "batch_size", "unlabeled_batch_size", "val_batch_size",
    "steps_per_epoch", "num_workers", "name", "class_names",
}  # fmt: skip


def words() -> list[str]:
    """Keys that the command line sets, of this point of a sweep; none where Hydra has not read one."""
    if not HydraConfig.initialized():
        return []
    return [word.lstrip("+").partition("=")[0] for word in HydraConfig.get().overrides.task if word[:1] != "~"]


def check(cfg: DictConfig, keys: Iterable[str], where: str = "") -> None:
    """Refuses settings without effect.

    Args:
        cfg: the configuration with its interpolations, after `entries.clean`.
        keys: dotted keys that were set by hand.
        where: the arm or stage that sets them, for the message.

    Raises:
        ConfigError: names a key that nothing reads, and why.
    """
    for key in keys:
        if OmegaConf.select(cfg, key) in (None, False):
            continue  # switched off is nothing
        reason = next(_reasons(cfg, key), None)
        if reason is not None:
            raise ConfigError(f"{where and f'{where}: '}{key}: nothing reads it: {reason}. Take the setting away")


def _reasons(cfg: DictConfig, key: str) -> Iterator[str]:
    """Why nothing reads a key."""
    for prefix, reason_of in _RULES.items():
        if key == prefix or key.startswith(f"{prefix}."):
            reason = reason_of(cfg, key)
            if reason is not None:
                yield reason


def _terms(cfg: DictConfig) -> dict[str, bool]:
    """Loss terms that count, and whether they read the teacher."""
    from kd_runner.distillation.inputs import InputSpec

    reads = {
        str(name): "teacher" in InputSpec(OmegaConf.to_container(node.inputs)).sources
        for name, node in cfg.loss.items()
    }
    return {name: teacher for name, teacher in reads.items() if cfg.loss[name].weight != 0 and _counts(cfg, teacher)}


def _counts(cfg: DictConfig, reads_teacher: bool) -> bool:
    return not reads_teacher or (cfg.kd.enabled and cfg.task._target_ != _TEACHER_TASK)


def _refers(cfg: DictConfig, key: str) -> bool:
    """Whether a part of the configuration that counts refers to a key, or to what holds it or lies in it."""
    content: Any = OmegaConf.to_container(cfg)
    content["loss"] = {name: content["loss"][name] for name in _terms(cfg)}
    parts = key.split(".")
    names = [".".join(parts[:count]) for count in range(2, len(parts))]
    pattern = "|".join([rf"{re.escape(key)}(?![\w-])", *(rf"{re.escape(name)}(?![\w.-])" for name in names)])
    return re.search(rf"\$\{{[^{{}}]*(?<![\w.])({pattern})", str(content)) is not None


def _temperature(cfg: DictConfig, key: str) -> str | None:
    content: Any = OmegaConf.to_container(cfg.loss)
    if any(TEMPERATURE in str(content[name]) for name in _terms(cfg)):
        return None
    return "no loss that counts has kd.temperature as its temperature"


def _alpha(cfg: DictConfig, key: str) -> str | None:
    kinds = set(_terms(cfg).values())
    if kinds == {True, False}:
        return None
    return "it weighs losses that read the teacher against those that do not, and there are none of the " + (
        "latter" if kinds == {True} else "former"
    )


def _teacher_cache(cfg: DictConfig, key: str) -> str | None:
    if not any(_terms(cfg).values()):
        return "no loss that counts reads the teacher"
    if key.count(".") > 1 and not cfg.kd.teacher_cache.enabled:
        return "kd.teacher_cache.enabled is false"
    return None


def _unlabeled(cfg: DictConfig, key: str) -> str | None:
    return "data.unlabeled is null" if cfg.data.unlabeled is None else None


def _of_data(cfg: DictConfig, key: str) -> str | None:
    if key == "data" or key.split(".")[1] in _DATA or _refers(cfg, key):
        return None
    return f"no part of this configuration that counts refers to ${{{key}}}"


def _of_loss(cfg: DictConfig, key: str) -> str | None:
    name = key.split(".")[1] if "." in key else ""
    if name not in cfg.loss or name in _terms(cfg) or key.endswith(".weight"):
        return None
    return "its weight is 0" if cfg.loss[name].weight == 0 else "it reads the teacher, and distillation is off"


def _checkpoint_keys(role: str) -> Callable[[DictConfig, str], str | None]:
    return lambda cfg, key: f"{role}.checkpoint is null" if cfg[role].checkpoint is None else None


def _student_init(cfg: DictConfig, key: str) -> str | None:
    return None if cfg.student.checkpoint is None else "the student begins with student.checkpoint"


def _int8(cfg: DictConfig, key: str) -> str | None:
    return None if cfg.export.get("int8") else "export.int8 is false"


def _teacher_task(cfg: DictConfig, key: str) -> str | None:
    return "task=train_teacher trains teacher.net from labels" if cfg.task._target_ == _TEACHER_TASK else None


def _seeds(cfg: DictConfig, key: str) -> str | None:
    return None if cfg.task._target_ in _MANY_RUNS else "this task is one run; give seed=..."


def _seed(cfg: DictConfig, key: str) -> str | None:
    return "this task trains with seeds=[...]" if cfg.task._target_ in _MANY_RUNS else None


# Key, or what it lies in, to a function that says why nothing reads it, or None.
_RULES: dict[str, Callable[[DictConfig, str], str | None]] = {
    "kd.temperature": _temperature,
    "kd.alpha": _alpha,
    "kd.teacher_cache": _teacher_cache,
    "pruning": _teacher_task,
    "data.unlabeled_batch_size": _unlabeled,
    "data": _of_data,
    "loss": _of_loss,
    "teacher.checkpoint_keys": _checkpoint_keys("teacher"),
    "student.checkpoint_keys": _checkpoint_keys("student"),
    "student.init": _student_init,
    "export.calibration_samples": _int8,
    "export.int8_tolerance": _int8,
    "seeds": _seeds,
    "seed": _seed,
}
