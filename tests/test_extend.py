"""A user's own loss: one Python file and one yaml in a folder of their own, nothing edited."""

from pathlib import Path

import pytest

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
