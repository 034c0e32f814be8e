"""What `task=` chooses, beside train and compare."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from kd_runner.config import build
from kd_runner.models.segmentation.fcn_resnet import fcn_resnet
from tests.tasks.onnx_metadata import onnx_metadata


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
    report = (folder(tmp_path) / "report.md").read_text()
    assert "student.safetensors`, the checkpoint with the best miou on the same split" in report
    assert "Weights of the teacher: " in report and "how they were chosen is not recorded" in report
    here("task=export", "export.samples=2", weights)
    said = onnx_metadata(folder(tmp_path) / "model.onnx")
    assert said["scores"] == {"miou": score} and said["experiment"] == "voc_kd" and len(said["class_names"]) == 11
    assert said["teacher_sha256"] == json.loads((trained / "metrics.json").read_text())["teacher_sha256"]
    assert said["normalization"]["std"] == [0.229, 0.224, 0.225]


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
    assert kept["net.features.0.0.weight"].is_contiguous(memory_format=torch.channels_last)
    cfg = OmegaConf.load(folder(tmp_path) / "config.yaml")
    image, logits = torch.randn(2, 3, 32, 32), {}
    for last in (False, True):
        cfg.student.channels_last = last
        net = build.trained(cfg, folder(tmp_path)).net.eval()
        assert net.features[0][0].weight.is_contiguous(memory_format=torch.channels_last) == last
        logits[last] = net(image)
    torch.testing.assert_close(logits[True], logits[False], atol=1e-5, rtol=1e-4)


def test_it_trains_in_mixed_precision(here, tmp_path: Path) -> None:
    here("trainer.precision=bf16-mixed", "trainer.max_epochs=1", "callbacks=[checkpoints]", "logger=none",
         "export=none")  # fmt: skip
    assert json.loads((folder(tmp_path) / "metrics.json").read_text())["steps"] == 3


def test_a_run_in_half_precision_leaves_float32_weights(here, tmp_path: Path) -> None:
    """The teacher is cast too; files, sizes and pictures are those of float32."""
    here("trainer.precision=bf16-true", "trainer.max_epochs=1", "logger=none", "export.samples=2",
         "callbacks=[checkpoints,segmentation_visualizer]")  # fmt: skip
    weights = load_file(folder(tmp_path) / "student.safetensors")
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}
    assert (folder(tmp_path) / "model.onnx").is_file() and (folder(tmp_path) / "pictures.png").is_file()


def test_the_average_of_the_weights_is_what_is_measured_written_and_exported(here, tmp_path: Path, capfd) -> None:
    here("callbacks=[checkpoints,ema]", "callbacks.ema.decay=0.5", "logger=none", "export=none",
         "+trainer.profiler=simple")  # fmt: skip
    run = folder(tmp_path)
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    written = load_file(run / "student.safetensors")
    average, raw = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert all(torch.equal(value, average[f"net.{name}"]) for name, value in written.items())
    assert any(not torch.equal(value, raw[f"net.{name}"]) for name, value in written.items())
    counters = [name for name in average if name.endswith("num_batches_tracked")]
    assert counters and all(torch.equal(average[name], raw[name]) for name in counters)
    best = next(s for s in checkpoint["callbacks"].values() if "best_model_score" in s and s.get("monitor"))
    score = json.loads((run / "metrics.json").read_text())["score"]
    assert score == pytest.approx(float(best["best_model_score"]), abs=1e-6)
    printed = capfd.readouterr()
    assert "Profiler Report" in printed.out + printed.err  # trainer.profiler=simple


def test_a_run_flushes_numbers_that_slow_a_cpu_down(here) -> None:
    torch.set_flush_denormal(False)
    here("trainer.max_epochs=1", "callbacks=[checkpoints]", "logger=none", "export=none")
    assert (torch.tensor([1e-30]) * torch.tensor([1e-10])).item() == 0.0


def test_a_run_shorter_than_the_interval_of_validation_is_measured_at_its_end(here, tmp_path: Path) -> None:
    here("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=3", "callbacks=[checkpoints]", "logger=none",
         "export=none")  # fmt: skip
    assert (folder(tmp_path) / "checkpoints" / "best.ckpt").exists()
