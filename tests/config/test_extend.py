"""A user's own loss, model, metric, callback, optimizer, scheduler and logger, in a folder of their own."""

import json
from pathlib import Path

import pytest
import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from tests.docs.markdown import blocks

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


def test_own_metric_callback_optimizer_scheduler_logger(started, tiny: list[str], tmp_path: Path) -> None:
    """The guide's files, as they stand there."""
    for block in blocks():
        if block.page.endswith("own_parts.md") and block.file is not None:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.text)
    own = ("scheduler", "data.unlabeled", "data.train.transform")
    words = [word for word in tiny if not word.startswith(own)]
    words += [
        "data.num_classes=11",
        "data.class_names=[]",
        "data.train.transform.crop=32",
        "data.val.transform.size=32",
    ]
    folder = started("--config-dir=my_kd", "experiment=parts", *words, "export=none", "trainer.log_every_n_steps=1")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["largest_loss"] > 0 and 0 <= metrics["metrics"]["agreement"] <= 1
    logged = [line.split() for line in (folder / "values.txt").read_text().splitlines()]
    rates = [float(value) for _, name, value in logged if name == "train/lr"]
    assert rates == pytest.approx([1e-3 * (1 - 0.9 * step / 6) for step in range(6)])


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
