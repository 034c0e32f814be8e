"""A setting that nothing reads is refused, so that no sweep goes over equal runs."""

import pytest
from omegaconf import DictConfig, OmegaConf

from kd_runner.cli import api
from kd_runner.config import build, entries, unread
from kd_runner.errors import ConfigError
from kd_runner.tasks import arms, compare


@pytest.fixture(scope="module")
def voc() -> DictConfig:
    return api.compose(["experiment=voc_kd", "task=compare", "kd.alpha=0.5"])


@pytest.fixture(scope="module")
def lidar() -> DictConfig:
    return api.compose(["experiment=bevfusion_crd"])


def changed(cfg: DictConfig, changes: dict) -> DictConfig:
    own = cfg.copy()
    for key, value in changes.items():
        OmegaConf.update(own, key, value, force_add=True)
    return entries.clean(own)


TRAIN = {"task._target_": "kd_runner.tasks.train.train"}
TEACHER = {"task._target_": "kd_runner.tasks.train_teacher.train_teacher"}
NO_TEACHER_LOSS = {"loss.kl_logits": None, "loss.cosine_features": None}
# What is set by hand, how the rest is, and why nothing reads it; None: something does.
CASES = [
    ("kd.temperature", {}, None),
    ("kd.temperature", {"loss.kl_logits": None}, "no loss that counts has kd.temperature"),
    ("kd.temperature", {"loss.kl_logits.fn.temperature": 3.0}, "no loss that counts has kd.temperature"),
    ("kd.temperature", {"kd.enabled": False}, "no loss that counts has kd.temperature"),
    ("kd.temperature", TEACHER, "no loss that counts has kd.temperature"),
    ("kd.alpha", {}, None),
    ("kd.alpha", NO_TEACHER_LOSS, "none of the former"),
    ("kd.alpha", {"loss.task_ce": None}, "none of the latter"),
    ("kd.alpha", {"loss.task_ce.weight": 0.0}, "none of the latter"),
    ("kd.teacher_cache.views", {"kd.teacher_cache.views": 2}, "kd.teacher_cache.enabled is false"),
    ("kd.teacher_cache.views", {"kd.teacher_cache": {"enabled": True, "views": 2}}, None),
    ("kd.teacher_cache.enabled", {"kd.teacher_cache.enabled": True, **NO_TEACHER_LOSS}, "no loss that counts"),
    ("kd.teacher_cache.enabled", {"kd.teacher_cache.enabled": False, **NO_TEACHER_LOSS}, None),
    ("data.unlabeled_batch_size", {}, None),
    ("data.unlabeled_batch_size", {"data.unlabeled": None}, "data.unlabeled is null"),
    ("data.batch_size", {}, None),
    ("data.num_classes", {}, None),
    ("data.mine.a", {"data.mine": {"a": 1}}, r"refers to \$\{data.mine.a\}"),
    ("data.mine.a", {"data.mine": {"a": 1}, "student.net.x": "${data.mine.a}"}, None),
    ("data.mine.a", {"data.mine": {"a": 1}, "student.net.x": "${data.mine}"}, None),
    ("data.mine.a", {"data.mine": {"a": 1}, "student.net.x": "${data.mine.ab}"}, "refers to"),
    ("loss.kl_logits.fn.per_pixel", {"loss.kl_logits.fn.per_pixel": 1}, None),
    ("loss.kl_logits.fn.per_pixel", {"loss.kl_logits.fn.per_pixel": 1, "kd.enabled": False}, "distillation is off"),
    ("loss.kl_logits.fn.per_pixel", {"loss.kl_logits.fn.per_pixel": 1, "loss.kl_logits.weight": 0.0}, "weight is 0"),
    ("pruning", {**TEACHER, "pruning": {"module": "x"}}, "task=train_teacher trains"),
    ("teacher.checkpoint_keys.strip", {"teacher.checkpoint_keys.strip": "m."}, None),
    ("teacher.checkpoint_keys.strip", {"teacher.checkpoint_keys.strip": "m.", "teacher.checkpoint": None},
     "teacher.checkpoint is null"),
    ("student.init", {"student.init": {"a": 1}, "student.checkpoint": "s"}, "student.checkpoint"),
    ("export.int8_tolerance", {}, "export.int8 is false"),
    ("export.int8_tolerance", {"export.int8": True}, None),
    ("seeds", {}, None),
    ("seeds", TRAIN, "one run; give seed"),
    ("seed", {"seed": 3}, r"seeds=\[\.\.\.\]"),
    ("seed", {**TRAIN, "seed": 3}, None),
]  # fmt: skip


@pytest.mark.parametrize(("key", "changes", "reason"), CASES)
def test_a_setting_without_effect_is_refused(voc: DictConfig, key: str, changes: dict, reason: str | None) -> None:
    cfg = changed(voc, changes)
    if reason is None:
        unread.check(cfg, [key])
        return
    with pytest.raises(ConfigError, match=rf"^{key}: nothing reads it: .*{reason}"):
        unread.check(cfg, [key])


def test_data_that_a_loss_alone_refers_to(lidar: DictConfig) -> None:
    unread.check(changed(lidar, {}), ["data.memory_bank.queue", "data.voxel_size"])
    for changes in ({"loss.crd": None}, {"kd.enabled": False}):
        with pytest.raises(ConfigError, match=r"^data\.memory_bank\.queue: nothing reads it"):
            unread.check(changed(lidar, changes), ["data.memory_bank.queue"])


def test_settings_of_an_arm_must_have_an_effect_there(voc: DictConfig) -> None:
    settings = {"kd.enabled": False, "kd.temperature": 2.0}
    with pytest.raises(ConfigError, match=r"^task\.arms\.hot: kd\.temperature: nothing reads it"):
        arms.arm_config(changed(voc, {}), 0, "task.arms.hot", settings)
    hot = arms.arm_config(changed(voc, {}), 0, "task.arms.hot", {"kd.temperature": 2.0})
    assert hot.loss.kl_logits.fn.temperature == 2.0


def test_an_arm_keeps_what_its_temperature_is(voc: DictConfig) -> None:
    """A schedule of the temperature in a comparison finds the losses whose temperature is that of distillation."""
    cfg = changed(voc, {})
    for name, settings in compare.arm_settings(cfg).items():
        own = arms.arm_config(cfg, 0, f"task.arms.{name}", settings)
        shared = {term.name for term in build.terms(own) if term.temperature_is_shared}
        assert shared == ({"kl_logits"} if own.kd.enabled else set())
        arms.check_arm(own, name)
