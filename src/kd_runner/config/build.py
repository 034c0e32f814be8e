"""Objects from configuration: one function a thing, each naming its key when it cannot be made."""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_runner.config import hardware, recipes
from kd_runner.config.instantiation import instantiate_checked
from kd_runner.config.loggers import logger
from kd_runner.config.pruning_plan import pruning_plan
from kd_runner.config.recorder import teacher_recorder
from kd_runner.data.images import keep_in_memory
from kd_runner.data.module import DataModule
from kd_runner.data.views import FixedAugmentations
from kd_runner.distillation import checkpoints, fast_teacher, student_file
from kd_runner.distillation import student as students
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.inputs import InputSpec
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.distillation.module import Distiller
from kd_runner.errors import ConfigError, named, require
from kd_runner.pruning.pruned import Pruned, rebuild
from kd_runner.runtime.run_folder import TEMPERATURE, RunFolder

log = logging.getLogger(__name__)


def data(cfg: DictConfig) -> DataModule:
    """The data module; writes embedded data first where `data.prepare` says how."""
    if cfg.data.prepare is not None:
        instantiate_checked(cfg.data.prepare, "data.prepare")
    keep_in_memory(cfg.data.get("images_in_memory_mb") or 0)
    settings = set(inspect.signature(DataModule).parameters) - {
        "train",
        "val",
        "unlabeled",
        "seed",
        "accumulate",
        "collate",
    }
    unlabeled = cfg.data.unlabeled if cfg.kd.enabled else None
    return DataModule(
        train=lambda: training_samples(cfg, "train"),
        val=lambda: instantiate_checked(cfg.data.val, "data.val"),
        unlabeled=(lambda: training_samples(cfg, "unlabeled")) if unlabeled is not None else None,
        seed=cfg.seed,
        collate=instantiate_checked(cfg.data.collate, "data.collate") if cfg.data.get("collate") else None,
        accumulate=cfg.trainer.get("accumulate_grad_batches") or 1,
        **{key: value for key, value in cfg.data.items() if key in settings},  # others are there to be referred to
    )


def training_samples(cfg: DictConfig, part: str) -> Any:
    """The dataset of `data.train` or `data.unlabeled`, in a few fixed views where the teacher's answers are kept."""
    samples, cache = instantiate_checked(cfg.data[part], f"data.{part}"), cfg.kd.teacher_cache
    if not cache.enabled or cache.views is None:
        return samples
    return FixedAugmentations(samples, cache.views, cache.memory_mb)


def net(cfg: DictConfig, role: str, seed: int | None = None) -> nn.Module:
    """The plain net of `teacher` or `student`, with initial weights that depend on the seed alone (default: `seed`)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed if seed is None else seed)
        return require(instantiate_checked(cfg[role].net, f"{role}.net"), nn.Module, f"{role}.net")


def load(cfg: DictConfig, role: str, module: nn.Module) -> checkpoints.Coverage | None:
    """Fill a net from `<role>.checkpoint`, all of it or not at all; None where no checkpoint is named."""
    node = cfg[role]
    if node.checkpoint is None:
        return None
    options = dict(OmegaConf.to_container(node.checkpoint_keys, resolve=True))  # type: ignore[arg-type]
    coverage = checkpoints.load(module, node.checkpoint, key=f"{role}.checkpoint", **options)
    return checkpoints.require(coverage, role, node.checkpoint)


def teacher(cfg: DictConfig) -> FeatureExtractor:
    """The teacher with its weights.

    Raises:
        ConfigError: no weights are named: a random teacher teaches nothing.
    """
    module = net(cfg, "teacher")
    rebuild_pruned(cfg, "teacher", module)
    coverage = load(cfg, "teacher", module)
    if coverage is not None:
        log.info("teacher: %s: %s", cfg.teacher.checkpoint, coverage)
    elif recipes.is_random(module, OmegaConf.to_container(cfg.teacher.net, resolve=True)):
        raise ConfigError(
            "teacher.checkpoint is null, and teacher.net names no published weights: the teacher would be random. "
            "Give a file, or train one: task=train_teacher"
        )
    return feature_extractor(cfg, "teacher", to_memory_format(cfg, "teacher", module))


def student(
    cfg: DictConfig,
    teacher: FeatureExtractor | None = None,
    data: DataModule | None = None,
    resume_from: Path | None = None,
) -> FeatureExtractor:
    """The student, from `student.checkpoint`, or with initial weights, pruned as `pruning` says.

    Args:
        cfg: the composed configuration.
        teacher: for a student that is to be trained (`needs_teacher`); `student.init` may start from its weights.
        data: likewise.
        resume_from: checkpoint of the run that goes on, from which a pruned student takes its widths.
    """
    module = net(cfg, "student")
    pruned = rebuild_pruned(cfg, "student", module)
    coverage = load(cfg, "student", module)
    if coverage is not None:
        log.info("student: %s: %s", cfg.student.checkpoint, coverage)
    elif cfg.student.init is not None:
        if teacher is None:
            raise ConfigError("student.init: it needs the teacher")
        instantiate_checked(cfg.student.init, "student.init")(module, teacher.net)
    made = feature_extractor(cfg, "student", module)
    made.pruned = pruned
    if cfg.student.trained is not None:
        students.share_modules(made, cfg.student.trained, None if teacher is None else teacher.net)
    if cfg.get("pruning") and data is not None:  # only a student that is to be trained
        if pruned is not None:
            raise ConfigError(
                f"pruning: student.checkpoint={cfg.student.checkpoint} is pruned already. Train it on with "
                "pruning=none, or name an unpruned file"
            )
        resumed = None if resume_from is None else checkpoints.pruning_spec(resume_from)
        students.prune(made, pruning_plan(cfg, made, data), terms(cfg), data, resumed)
    to_memory_format(cfg, "student", module)
    return made


def rebuild_pruned(cfg: DictConfig, role: str, module: nn.Module) -> Pruned | None:
    """Cut a net to the widths that the header of `<role>.checkpoint` names; None where it was not pruned."""
    path = cfg[role].checkpoint
    if path is None:
        return None
    header = student_file.read_header(checkpoints.file_of_role(path, role))
    if header.pruning is None:
        return None
    try:
        return rebuild(module, header.pruning, path)
    except ValueError as error:
        raise ConfigError(f"{role}.checkpoint: {path}: its pruning does not fit {role}.net: {error}") from error


def trained(cfg: DictConfig, folder: Path) -> FeatureExtractor:
    """The student that an ended run left in `folder`."""
    own = cfg.copy()
    use_weights(own.student, folder / "student.safetensors")
    return student(own)


def use_weights(node: DictConfig, file: Path) -> None:
    """Let `teacher` or `student` load a file that a run wrote, whose names are the net's own."""
    node.checkpoint = str(file)
    keys = node.checkpoint_keys
    keys.strip, keys.rename, keys.drop, keys.convert = "", {}, [], None


def feature_extractor(cfg: DictConfig, role: str, module: nn.Module) -> FeatureExtractor:
    """The net with the inputs and features of `teacher` or `student`."""
    node = cfg[role]
    features_of, inputs_of = (
        {name: instantiate_checked(part, f"{role}.{key}.{name}") for name, part in (node.get(key) or {}).items()}
        for key in ("feature_transforms", "input_transforms")
    )
    features = FeatureExtractor(module, node.inputs, node.features, role, node.train_inputs, features_of, inputs_of)
    features.net_config = OmegaConf.to_container(node.net, resolve=True)  # type: ignore[assignment]
    return features


def to_memory_format(cfg: DictConfig, role: str, module: nn.Module) -> nn.Module:
    """The net itself, its weights in memory as `<role>.channels_last` says."""
    last = cfg[role].channels_last
    return module.to(memory_format=torch.channels_last) if last else module  # type: ignore[call-overload]


def needs_teacher(cfg: DictConfig) -> bool:
    """Whether a teacher must be made: something reads it, or the student begins with its weights or modules."""
    begins = cfg.student.checkpoint is None and (cfg.student.init is not None or cfg.student.trained is not None)
    return begins or reads_teacher(cfg)


def reads_teacher(cfg: DictConfig) -> bool:
    """Whether any term that counts reads the teacher; if not, it need not be made."""
    specs = [InputSpec(OmegaConf.to_container(node.inputs)) for node in cfg.loss.values() if node.weight != 0]
    return cfg.kd.enabled and any("teacher" in spec.sources for spec in specs)


def terms(cfg: DictConfig) -> list[LossTerm]:
    """Loss terms, projections not yet built. With `kd.enabled=false` only those that read no teacher."""
    made = []
    for name, node in cfg.loss.items():
        inputs: Any = OmegaConf.to_container(node.inputs)
        shared = OmegaConf.to_container(node.fn).get("temperature") == TEMPERATURE  # type: ignore[union-attr]
        fn = instantiate_checked(node.fn, f"loss.{name}.fn")
        made.append(LossTerm(name, fn, inputs, node.weight, temperature_is_shared=shared))
    made = [term for term in made if term.weight != 0 and (cfg.kd.enabled or not term.uses_teacher)]
    if not made:
        raise ConfigError("loss: no term is left to train with (kd.enabled=false leaves those that read no teacher.*)")
    return made


def metrics(cfg: DictConfig) -> dict[str, Any]:
    return {
        name: (instantiate_checked(node.fn, f"metric.{name}.fn"), OmegaConf.to_container(node.inputs))
        for name, node in cfg.metric.items()
    }


def distiller(
    cfg: DictConfig, student: FeatureExtractor, teacher: FeatureExtractor | None, example: Mapping[str, Any]
) -> Distiller:
    """The LightningModule; its projections are sized from one example batch. A teacher where `reads_teacher`."""
    made = terms(cfg)
    module = Distiller(
        student=student,
        teacher=teacher,
        terms=made,
        metrics=metrics(cfg),
        optimizer=instantiate_checked(cfg.optimizer, "optimizer", **hardware.optimizer_settings(cfg)),
        scheduler=instantiate_checked(cfg.scheduler, "scheduler") if cfg.get("scheduler") else None,
        alpha=cfg.kd.alpha if teacher is not None else None,
        layer_decay=OmegaConf.to_container(cfg.layer_decay) if cfg.layer_decay else None,  # type: ignore[arg-type]
    )
    inputs = (module.loss_inputs, module.metric_inputs)
    names = {name: None for spec in inputs for name in spec.required_features("teacher")}
    if teacher is not None and names and cfg.teacher.get("fast"):
        module.teacher = fast_teacher.fold(teacher, example, names, student.net)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        module.build_losses(example)
    return module


def evaluator(cfg: DictConfig, net: FeatureExtractor) -> Distiller:
    """A module that only measures: teacher or student, by the same metrics."""
    return Distiller(student=net, metrics=metrics(cfg))


def trainer(cfg: DictConfig, run: RunFolder) -> Any:
    """The Lightning Trainer, writing into the folder of a run."""
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint

    from kd_runner.callbacks.atomic_checkpoints import AtomicCheckpointIO
    from kd_runner.callbacks.progress import progress, quiet_lightning
    from kd_runner.callbacks.prune_in_rounds import PruneInRounds
    from kd_runner.callbacks.random_state import RandomState
    from kd_runner.callbacks.stop_signals import StopSignals
    from kd_runner.callbacks.training_cost import TrainingCost

    quiet_lightning()
    hardware.uses_gpu(cfg)
    settings = hardware.trainer_settings(cfg)
    every, last = cfg.trainer.get("check_val_every_n_epoch"), cfg.trainer.get("max_epochs")
    if every and last and 0 < last < every:  # a short run is measured at its end
        settings["check_val_every_n_epoch"] = last
    nodes = {f"callbacks.{name}": node for name, node in (cfg.get("callbacks") or {}).items()}
    callbacks = [require(instantiate_checked(node, key), Callback, key) for key, node in nodes.items()]
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(run.checkpoints.absolute())  # else the logger's name and version would choose it
    if cfg.get("pruning"):
        callbacks.append(PruneInRounds(instantiate_checked(cfg.pruning, "pruning")))
    if OmegaConf.select(cfg, "kd.teacher_cache.enabled"):
        callbacks.append(teacher_recorder(cfg))
    bar = progress()
    create = instantiate_checked(cfg.trainer, "trainer", _partial_=True)
    with named("trainer"):
        return create(
            callbacks=[*callbacks, RandomState(), TrainingCost(), StopSignals(), *bar],
            logger=logger(cfg, run) or False,
            plugins=[AtomicCheckpointIO(run)],
            default_root_dir=str(run.path),
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_progress_bar=bool(bar),
            **settings,
        )


def exporter(cfg: DictConfig) -> Any:
    """The exporter of `export`; None where nothing is to be exported."""
    return instantiate_checked(cfg.export, "export") if cfg.get("export") else None
