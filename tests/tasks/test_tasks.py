"""What `task=` chooses, beside train and compare."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from kd_runner.config import build
from kd_runner.models.segmentation.fcn_resnet import fcn_resnet


def folder(root: Path) -> Path:
    return sorted(p.parent for p in (root / "outputs" / "voc_kd").glob("*/metrics.json"))[-1]


def test_a_trained_teacher_teaches(here, tmp_path: Path) -> None:
    """The file that task=train_teacher leaves is one that teacher.checkpoint takes."""
    here("task=train_teacher", "export=none", "trainer.max_epochs=1", "data.prepare=null", "data.train.split=train",
         "teacher.checkpoint=null")  # fmt: skip
    file = folder(tmp_path) / "teacher.safetensors"
    fcn_resnet(11, layers=(1, 1, 1, 1), width=4).load_state_dict(load_file(file), strict=True)
    here(f"teacher.checkpoint={file}", "export=none", "trainer.max_epochs=1")


def test_evaluate_and_export_take_a_student_file(here, tmp_path: Path) -> None:
    here("export=none", "trainer.max_epochs=1")
    trained = folder(tmp_path)
    score = json.loads((trained / "metrics.json").read_text())["score"]
    weights = f"student.checkpoint={trained / 'student.safetensors'}"
    here("task=evaluate", weights)
    metrics = json.loads((folder(tmp_path) / "metrics.json").read_text())["metrics"]
    assert metrics["student"]["miou"] == pytest.approx(score, abs=1e-6) and "teacher" in metrics
    here("task=export", "export.samples=2", weights)
    assert (folder(tmp_path) / "model.onnx").stat().st_size > 0


@pytest.mark.parametrize("task", ["evaluate", "export"])
def test_they_name_the_key_that_is_missing(task: str, here, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["teacher.checkpoint=null"] if task == "evaluate" else []
    with pytest.raises(SystemExit):
        here(f"task={task}", *words)
    assert "student.checkpoint: name the weights" in capfd.readouterr().out


def test_without_a_teacher_term_no_teacher_is_made(here, tmp_path: Path) -> None:
    """Its checkpoint is not even looked for."""
    here("kd.enabled=false", "teacher.checkpoint=nowhere.pth", "export=none", "trainer.max_epochs=1")
    last = torch.load(folder(tmp_path) / "checkpoints" / "last.ckpt", weights_only=False)
    assert not any(key.startswith("losses.cosine") for key in last["state_dict"])


def test_channels_last_is_a_matter_of_memory_alone(here, tmp_path: Path) -> None:
    """A student trained so lies so in the checkpoint; its file is like any other, and its outputs are the same."""
    here("student.channels_last=true", "trainer.max_epochs=1", "callbacks=[checkpoints]", "logger=none", "export=none")
    kept = torch.load(folder(tmp_path) / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    assert kept["student.features.0.0.weight"].is_contiguous(memory_format=torch.channels_last)
    cfg = OmegaConf.load(folder(tmp_path) / "config.yaml")
    image, logits = torch.randn(2, 3, 32, 32), {}
    for last in (False, True):
        cfg.student.channels_last = last
        net = build.trained(cfg, folder(tmp_path)).net.eval()
        assert net.features[0][0].weight.is_contiguous(memory_format=torch.channels_last) == last
        logits[last] = net(image)
    torch.testing.assert_close(logits[True], logits[False], atol=1e-5, rtol=1e-4)


def test_a_run_flushes_numbers_that_slow_a_cpu_down(here) -> None:
    torch.set_flush_denormal(False)
    here("trainer.max_epochs=1", "callbacks=[checkpoints]", "logger=none", "export=none")
    assert (torch.tensor([1e-30]) * torch.tensor([1e-10])).item() == 0.0


def test_a_run_shorter_than_the_interval_of_validation_is_measured_at_its_end(here, tmp_path: Path) -> None:
    here("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=3", "callbacks=[checkpoints]", "logger=none",
         "export=none")  # fmt: skip
    assert (folder(tmp_path) / "checkpoints" / "best.ckpt").exists()
