"""Precision, determinism and fused optimizers fit the device and each other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd_runner.config import build, entries, hardware, validate
from kd_runner.config.compose import compose
from kd_runner.config.instantiation import instantiate_checked
from kd_runner.config.location import CONF
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.distillation.module import Distiller
from kd_runner.errors import ConfigError
from kd_runner.runtime.run_folder import RunFolder

EXPERIMENTS = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml") if p.stem != "none")


def squared(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean()


def distiller(cfg: Any) -> Distiller:
    torch.manual_seed(0)
    student, teacher = (
        FeatureExtractor(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), {"input": "x"}, {"logits": ":"}, role)
        for role in ("student", "teacher")
    )
    term = LossTerm("squared", squared, {"student": "student.logits", "teacher": "teacher.logits"})
    create = instantiate_checked(cfg.optimizer, "optimizer", **hardware.optimizer_settings(cfg))
    return Distiller(student, teacher, [term], optimizer=create)


@pytest.mark.parametrize("scale", ["mini", "full"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_no_experiment_clips_gradients_of_a_fused_optimizer_in_mixed_precision(
    experiment: str, scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's AMP plugin refuses that at the first step."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for trainer, precision in (("gpu", "bf16-mixed"), ("ddp", "bf16-mixed"), ("cpu", "32-true")):
        cfg = compose([f"experiment={experiment}", f"scale={scale}", f"trainer={trainer}", "data.root=/data"])
        settings = {**cfg.optimizer, **hardware.optimizer_settings(cfg)}
        assert hardware.precision(cfg) == precision
        mixed_and_clipped = precision == "bf16-mixed" and cfg.trainer.gradient_clip_val is not None
        assert not (mixed_and_clipped and settings.get("fused"))
        if trainer == "cpu":
            assert settings.get("fused") == cfg.optimizer.get("fused")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16-mixed", torch.float32), ("bf16-true", torch.bfloat16), ("32-true", torch.float32)]
)
def test_a_run_clips_and_steps_in_every_precision(tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    """The teacher has the precision of the student."""
    words = [f"trainer.precision={precision}", "trainer.max_epochs=1", "callbacks=[]", "logger=none"]
    cfg = entries.clean(compose(words))
    assert cfg.optimizer.fused and cfg.trainer.gradient_clip_val
    module = distiller(cfg)
    before = module.net[0].weight.detach().clone()
    data = torch.utils.data.DataLoader([{"x": torch.ones(3), "index": 0}] * 4, batch_size=2)
    build.trainer(cfg, RunFolder(tmp_path)).fit(module, data)
    assert {p.dtype for net in (module.net, module.teacher.net) for p in net.parameters()} == {dtype}
    assert not torch.equal(module.net[0].weight.float(), before)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_coordinates_are_not_rounded(experiment: str) -> None:
    """`bf16-true` casts whole batches: with eight bits a point at 50 m is off by up to 12 cm."""
    cfg = compose([f"experiment={experiment}", "trainer.precision=bf16-true"])
    if experiment in ("bevfusion_crd", "hierarchical_unet_kd", "orion_kd"):
        with pytest.raises(ConfigError, match=r"^trainer\.precision=bf16-true: it would round .*; take bf16-mixed"):
            validate.check(entries.clean(cfg))
        cfg.trainer.precision = "bf16-mixed"
    validate.check(entries.clean(cfg))


def test_auto_is_what_the_device_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministic on CPUs; on GPUs some losses have no deterministic kernel. A run on the CPU keeps float32."""
    words = ["trainer=ddp", "trainer.devices=2"]
    assert hardware.trainer_settings(compose(words)) == {"precision": "32-true", "deterministic": True}
    with pytest.raises(ConfigError, match="no GPU is visible"):
        hardware.uses_gpu(compose(["trainer=gpu"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert hardware.trainer_settings(compose(words)) == {"precision": "bf16-mixed", "deterministic": False}
    on_cpu = hardware.trainer_settings(compose([*words, "trainer.accelerator=cpu"]))
    assert on_cpu == {"precision": "32-true", "deterministic": True}
