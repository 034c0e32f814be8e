"""Which teacher the losses read: the trained one, or for a control one that knows nothing (`kd.null_teacher`)."""

import copy

from omegaconf import DictConfig

from kd_runner.config import build
from kd_runner.distillation import null_teacher
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.errors import ConfigError

SEED = 1_000_003
"""Added to the run's seed: the initial weights must not be those of a student of the same net."""


def teacher_of_losses(cfg: DictConfig, teacher: FeatureExtractor | None) -> FeatureExtractor | None:
    """What the losses read; None where no term that counts reads a teacher.

    A null teacher is a net of its own: a student that begins with the teacher's weights, or holds modules of it, keeps
    the trained ones, so that all arms of a comparison start alike.

    Args:
        cfg: the composed configuration.
        teacher: the trained one.

    Returns:
        The trained teacher, or the null teacher in its place; None where no term reads one.

    Raises:
        ConfigError: `random` for a net that brings its own published weights.
    """
    if teacher is None or not build.reads_teacher(cfg):
        return None
    kind = cfg.kd.get("null_teacher")
    if kind is None:
        return teacher
    if kind == "permuted":
        module = copy.deepcopy(teacher.net)
        null_teacher.permute(module, cfg.seed + SEED)
    else:
        for argument in ("weights", "pretrained"):
            if cfg.teacher.net.get(argument):
                raise ConfigError(
                    f"kd.null_teacher=random: teacher.net.{argument} loads published weights; kd.null_teacher=permuted"
                )
        module = build.net(cfg, "teacher", cfg.seed + SEED)
        build.rebuild_pruned(cfg, "teacher", module)
    return build.feature_extractor(cfg, "teacher", build.to_memory_format(cfg, "teacher", module))
