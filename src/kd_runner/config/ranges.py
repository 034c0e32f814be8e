"""Values that a type does not limit enough: one table of ranges, and no nan anywhere."""

import math
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_runner.errors import ConfigError
from kd_runner.runtime.flatten import flatten

PRECISIONS = (
    "auto", "32-true", "32", "16-mixed", "16-true", "16", "bf16-mixed", "bf16-true", "bf16", "64-true", "64",
    "transformer-engine", "transformer-engine-float16",
)  # fmt: skip
MAX_THREADS = 1024  # far more make OpenMP end the process
_ABSENT = object()
DEVICES_HINT = "a number of devices, a list of their numbers, or auto"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _int_from(low: int) -> Callable[[Any], bool]:
    return lambda value: _is_int(value) and value >= low


def _number(low: float, high: float = math.inf, above: bool = False) -> Callable[[Any], bool]:
    return lambda value: _is_number(value) and (value > low if above else value >= low) and value <= high


def _devices(value: Any) -> bool:
    return value in ("auto", "-1", -1) or (_is_int(value) and value > 0) or (isinstance(value, list) and bool(value))


# Key to (what is right, whether null is, the same in words). A key that is not there is not checked.
RANGES: dict[str, tuple[Callable[[Any], bool], bool, str]] = {
    "kd.temperature": (_number(0, above=True), False, "a number above 0"),
    "kd.alpha": (_number(0, 1), True, "the fraction of distillation, 0..1, or null"),
    "kd.null_teacher": (lambda v: v in ("random", "permuted"), True, "random, permuted, or null for the trained one"),
    "kd.teacher_cache.views": (_int_from(1), True, "a whole number from 1, or null for transforms that are not random"),
    "kd.teacher_cache.map_dtype": (lambda v: v in ("float16", "float32"), False, "float16 or float32"),
    "kd.teacher_cache.memory_mb": (_number(0), False, "megabytes, from 0"),
    "data.images_in_memory_mb": (_number(0), True, "megabytes, from 0"),
    "seed": (_int_from(0), False, "a whole number from 0"),
    "seeds": (
        lambda v: isinstance(v, list) and bool(v) and all(map(_int_from(0), v)) and len(set(v)) == len(v),
        False,
        "a list of different seeds, at least one, e.g. seeds=[0,1,2]",
    ),
    "threads": (
        lambda v: _int_from(1)(v) and v <= MAX_THREADS, True,
        f"a whole number from 1 to {MAX_THREADS}, or null for torch's own choice"),
    "data.root": (lambda v: isinstance(v, str) and bool(v), True, "the path of a folder"),
    "layer_decay": (lambda v: isinstance(v, dict), True, "{blocks: ..., decay: ...}, or null"),
    "layer_decay.decay": (_number(0, 1, above=True), False, "a factor of the learning rate, above 0 and at most 1"),
    "data.batch_size": (_int_from(1), False, "a whole number from 1"),
    "data.unlabeled_batch_size": (_int_from(1), False, "a whole number from 1"),
    "data.val_batch_size": (_int_from(1), False, "a whole number from 1"),
    "data.steps_per_epoch": (_int_from(1), True, "a whole number from 1, or null for one pass over the labels"),
    "data.num_workers": (_int_from(0), False, "a whole number from 0"),
    "optimizer.lr": (_number(0), False, "a number from 0"),
    "optimizer.weight_decay": (_number(0), False, "a number from 0"),
    "optimizer.momentum": (_number(0), False, "a number from 0"),
    "scheduler.warmup_steps": (_int_from(0), False, "a whole number from 0"),
    "scheduler.final_factor": (_number(0), False, "a factor of the learning rate, from 0"),
    "trainer.max_epochs": (_int_from(1), False, "a whole number from 1"),
    "trainer.max_steps": (lambda v: v == -1 or _int_from(1)(v), False, "a whole number from 1, or -1 for no limit"),
    "trainer.precision": (lambda v: str(v) in PRECISIONS, False, "32-true, bf16-mixed, 16-mixed, ... or auto"),
    "trainer.devices": (_devices, False, DEVICES_HINT),
    "trainer.num_nodes": (_int_from(1), False, "a whole number from 1"),
    "trainer.accelerator": (
        lambda v: v in ("cpu", "gpu", "cuda", "mps", "tpu", "auto"), False, "cpu, gpu or auto"),
    "trainer.accumulate_grad_batches": (_int_from(1), False, "a whole number from 1"),
    "trainer.check_val_every_n_epoch": (_int_from(1), True, "a whole number from 1"),
    "trainer.log_every_n_steps": (_int_from(1), False, "a whole number from 1"),
    "trainer.gradient_clip_val": (_number(0, above=True), True, "a number above 0, or null for no clipping"),
    "trainer.deterministic": (
        lambda v: v in (True, False, "warn", "auto"), True, "true, false, warn or auto"),
    "export.samples": (_int_from(1), False, "a whole number from 1"),
    "export.tolerance": (_number(0), False, "a number from 0"),
    "task.workers": (_int_from(1), True, "a whole number from 1, or null for one per core"),
}  # fmt: skip


def check(cfg: DictConfig) -> None:
    """Check every value of the table, and that no number of the configuration is nan or infinite.

    Args:
        cfg: the composed configuration.

    Raises:
        ConfigError: names key, value, and what is expected.
    """
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    weights = {f"loss.{name}.weight": (_number(0), False, "a number from 0") for name in content.get("loss") or {}}
    for key, (is_right, may_be_null, expected) in {**RANGES, **weights}.items():
        value = _value(content, key)
        if value is _ABSENT or (may_be_null and value is None):
            continue
        if not is_right(value):
            raise ConfigError(f"{key}={_shown(value)}: expected {expected}")
    flat = flatten(content)
    for key, value in flat.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{key}={_shown(value)}: expected finite numbers")


def _value(content: Any, key: str) -> Any:
    """The value at a dotted key, mappings included; `_ABSENT` where there is none."""
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return _ABSENT
        content = content[part]
    return content


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).replace(" ", "")
