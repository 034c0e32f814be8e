"""A user's own loss and model, in a folder of their own, nothing edited."""

from pathlib import Path

import pytest
import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

LOSS = """
import torch.nn.functional as F
from torch import nn

class LogitMSE(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, student, teacher):
        return self.scale * F.mse_loss(student, teacher)
"""
YAML = """
logit_mse:
  weight: 0.1
  inputs: {student: student.logits, teacher: teacher.logits}
  fn: {_target_: my_logit_mse.LogitMSE, scale: 2.0}
"""


def test_own_loss(here, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine" / "loss").mkdir(parents=True)
    (tmp_path / "mine" / "my_logit_mse.py").write_text(LOSS)
    (tmp_path / "mine" / "loss" / "logit_mse.yaml").write_text(YAML)
    here("--config-dir=mine", "loss=[task_ce,logit_mse]", "export=none", "trainer.max_epochs=1")
    assert "logit_mse" in capfd.readouterr().out
    (log,) = tmp_path.glob("outputs/voc_kd/*/run.log")
    assert "task_ce" in log.read_text() and "logit_mse" in log.read_text()


MODEL = """
# @package _global_
teacher: &net
  net: {_target_: torchvision.models.segmentation.lraspp_mobilenet_v3_large, num_classes: "${data.num_classes}",
        weights_backbone: null}
  inputs: {input: image}
  features: {logits: ":out", low: backbone.3, mid: backbone.6, high: backbone.16}
  checkpoint: teacher.pth
  checkpoint_keys: {strip: "module."}
student: {<<: *net, checkpoint: null}
"""


@pytest.fixture
def own_model(started, tiny: list[str], tmp_path: Path):
    """A run of `model=mine`, after a change of its file, with what of the tiny task is no net."""
    torch.save({f"module.{name}": value for name, value in _net().state_dict().items()}, tmp_path / "teacher.pth")
    file = tmp_path / "mine" / "model" / "mine.yaml"
    file.parent.mkdir(parents=True)
    words = [word for word in tiny if not word.startswith(("++teacher", "teacher", "student"))]

    def call(*more: str, right: str = "", wrong: str = "") -> Path:
        file.write_text(MODEL.replace(right, wrong))
        return started("--config-dir=mine", "model=mine", *words, "export=none", "trainer.max_epochs=1", *more)

    return call


def _net() -> torch.nn.Module:
    torch.manual_seed(1)
    return lraspp_mobilenet_v3_large(num_classes=11, weights_backbone=None)


def test_own_model_at_scale_mini(own_model) -> None:
    """Its yaml names nets, inputs and features, and nothing of what has a default."""
    log = (own_model() / "run.log").read_text()
    assert f"teacher.pth: {len(_net().state_dict())} matched, 0 missing" in log and "cosine_features" in log


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("inputs: {input", "inputz: {input", "teacher.inputz: no such key. Did you mean 'teacher.inputs'?"),
        (
            "{strip:",
            "{stripp:",
            "teacher.checkpoint_keys.stripp: no such key. Did you mean 'teacher.checkpoint_keys.strip'?",
        ),
        ("lraspp_mobilenet_v3_large", "lraspp_mobilenet_v3_lage", "Did you mean 'lraspp_mobilenet_v3_large'?"),
    ],
)
def test_misspelt_in_an_own_model(
    own_model, right: str, wrong: str, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        own_model(right=right, wrong=wrong)
    assert expected in "".join(capfd.readouterr())
