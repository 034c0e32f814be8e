"""The typed part of the configuration: Hydra refuses values of a wrong type and keys that are not here.

The values stand in `conf/config.yaml`; this file says their types. What a group's file gives to a class or function
(`data`, `trainer`, `optimizer`, ...) is open here; `ranges.py` and `calls.py` check it.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

SCHEMA = "schema"


@dataclass
class CheckpointKeys:
    """How names of a checkpoint become names of the net; see `distillation.checkpoints.load`."""

    strip: str = MISSING
    rename: dict[str, str] = MISSING
    drop: list[str] = MISSING
    convert: str | None = None


@dataclass
class Net:
    """A net, what it reads of a batch, and its named features."""

    net: Any = MISSING
    inputs: dict[str, str] = MISSING
    train_inputs: dict[str, str] = MISSING
    features: dict[str, str] = MISSING
    feature_transforms: dict[str, Any] = MISSING
    input_transforms: dict[str, Any] = MISSING
    checkpoint: str | None = MISSING
    checkpoint_keys: CheckpointKeys = MISSING
    channels_last: bool = MISSING
    pretrained: dict[str, str] | None = None


@dataclass
class Teacher(Net):
    """Keys of `teacher`."""

    fast: bool = MISSING


@dataclass
class Student(Net):
    """Keys of `student`."""

    init: Any = MISSING
    trained: str | None = MISSING


@dataclass
class TeacherCache:
    """Keys of `kd.teacher_cache`."""

    enabled: bool = MISSING
    views: int | None = MISSING
    map_dtype: str = MISSING
    memory_mb: float = MISSING


@dataclass
class Distillation:
    """Keys of `kd`."""

    enabled: bool = MISSING
    temperature: float = MISSING
    alpha: float | None = MISSING
    teacher_cache: TeacherCache = MISSING
    null_teacher: str | None = None


@dataclass
class LossEntry:
    """Keys of an entry of `loss`."""

    weight: float = MISSING
    inputs: dict[str, Any] = MISSING
    fn: Any = MISSING


@dataclass
class MetricEntry:
    """Keys of an entry of `metric`."""

    inputs: dict[str, Any] = MISSING
    fn: Any = MISSING


@dataclass
class Config:
    """The whole configuration. An entry of `loss`, `metric` or `callbacks` that is null is taken away."""

    task: Any = MISSING
    scale: str = MISSING
    teacher: Teacher = MISSING
    student: Student = MISSING
    kd: Distillation = MISSING
    data: Any = MISSING
    loss: dict[str, LossEntry | None] = field(default_factory=dict)
    metric: dict[str, MetricEntry | None] = field(default_factory=dict)
    pruning: Any = None
    optimizer: Any = MISSING
    scheduler: Any = None
    trainer: Any = MISSING
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: Any = None
    export: Any = None
    layer_decay: Any = MISSING  # open: OmegaConf cannot merge keys into a typed value that is null
    monitor: str = MISSING
    seed: int = MISSING
    seeds: list[int] = MISSING
    methods: list[str] = MISSING
    threads: int | None = MISSING
    resume: str | None = MISSING
    cache: str = MISSING


def register() -> None:
    """Makes the schema known to Hydra, under the name that `conf/config.yaml` begins with."""
    ConfigStore.instance().store(name=SCHEMA, node=Config, provider="kd_runner")
