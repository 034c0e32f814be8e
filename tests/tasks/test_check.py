"""task=check does once what a run does, and says what would fail later."""

from pathlib import Path
from typing import Any

import pytest
import torch

FAST = ["logger=none", "export=none", "callbacks=[checkpoints]"]


def refused(here: Any, capfd: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit):
        here(*words)
    return "".join(capfd.readouterr())


def test_the_whole_of_a_run_is_tried_and_nothing_stays(here: Any, tmp_path: Path, capfd: Any) -> None:
    here("task=check", "logger=none", "export.samples=2")
    text = capfd.readouterr().out
    assert "One optimizer step, one validation batch, a checkpoint, pictures and the export work." in text
    assert not list(tmp_path.rglob("*.onnx")) and not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("task", ["check", "train"])
def test_a_wrong_metric_name_ends_it_before_the_first_step(here: Any, capfd: Any, tmp_path: Path, task: str) -> None:
    text = refused(here, capfd, f"task={task}", "monitor=mIoU", *FAST)
    assert "monitor=mIoU: no metric has this name. Did you mean 'miou'?" in text
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer._target_=torch.optim.Muon", "~optimizer.fused"], "optimizer: "),
        (["callbacks=[checkpoints,detection_visualizer]"], "callbacks."),
        (["metric.segmentation_iou.inputs.preds=teacher.logits", "kd.enabled=false"], "teacher.logits"),
        (["+callbacks.bar._target_=lightning.pytorch.callbacks.TQDMProgressBar"], "trainer: "),
    ],
)
def test_what_would_fail_later_is_said(here: Any, capfd: Any, words: list[str], message: str) -> None:
    text = refused(here, capfd, "task=check", *FAST, *words)
    assert message in text and "Traceback" not in text and "run.log" not in text


def test_the_step_has_the_precision_of_the_run(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    linear = torch.nn.functional.conv2d

    def record(input: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        output = linear(input, *rest, **named)
        seen.append((torch.is_grad_enabled(), output.dtype))
        return output

    monkeypatch.setattr(torch.nn.functional, "conv2d", record)
    here("task=check", *FAST, "trainer.precision=bf16-mixed")
    assert (True, torch.bfloat16) in seen
