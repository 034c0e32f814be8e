"""`experiment=bevfusion_crd` from teacher to ONNX, on a world of a few frames."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kd_runner.distillation import checkpoints
from kd_runner.synthetic.driving import nuscenes_writer
from tests.tasks.onnx_metadata import check_metadata

TINY = [
    "experiment=bevfusion_crd", "data.prepare=null", "data.batch_size=2", "data.unlabeled_batch_size=2",
    "data.val_batch_size=2", "data.steps_per_epoch=2", "data.max_points=3000", "trainer.max_epochs=1",
    "data.voxel_size=[0.4,0.4,0.25]", "teacher.net.head.num_proposals=10", "loss.crd.fn.n_data=8",
    "loss.crd.fn.queue=null", "loss.crd.fn.num_negatives=4", "loss.label_distillation.fn.threshold=0.0",
    "loss.box_response.fn.threshold=0.0",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "data"
    scenes = {"num_train_scenes": 2, "num_val_scenes": 1, "num_unlabeled_scenes": 2}
    return nuscenes_writer.write(root, **scenes, num_keyframes=2, sweeps_between=0, channels=12, azimuths=120)


@pytest.fixture
def bevfusion(started: Callable[..., Path], world: Path) -> Callable[..., Path]:
    return lambda *words: started(*TINY, f"data.root={world}", *words)


@pytest.fixture(scope="module")
def teacher(started_once: Callable[..., Path], world: Path) -> Path:
    words = ["task=train_teacher", "data.unlabeled=null", "export=none", "callbacks=[checkpoints]"]
    tiny = [
        word for word in TINY if not word.startswith(("data.unlabeled", "loss."))
    ]  # what nothing reads then is refused
    return started_once(*tiny, f"data.root={world}", *words) / "teacher.safetensors"


def test_from_teacher_to_onnx(bevfusion, teacher: Path) -> None:
    # Not the boxes: nets as raw as these propose nearly equal cells, whose order is anyone's.
    folder = bevfusion(f"teacher.checkpoint={teacher}", "export.samples=2", "export.outputs=[heatmap]")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["onnx"]["relative_error"] < 1e-4 and metrics["onnx"]["agreement"] > 0.99
    said = check_metadata(folder, "bevfusion_crd", num_classes=8)
    assert said["part"] == "dense" and said["normalization"] is None  # a map goes in, no image
    assert (folder / "pictures.png").stat().st_size > 1000

    teacher_weights, initial, trained = (
        checkpoints.read(file, "")
        for file in (teacher, folder / "student_untrained.safetensors", folder / "student.safetensors")
    )
    name = "pts_backbone.blocks.0.0.weight"
    assert torch.equal(initial[name], teacher_weights[name][: len(initial[name]), : initial[name].shape[1]])
    assert not torch.equal(trained[name], initial[name])

    submitted = bevfusion("task=nuscenes_submission", f"student.checkpoint={folder / 'student.safetensors'}")
    content = json.loads((submitted / "results_nusc.json").read_text())
    assert len(content["results"]) == 2 and content["meta"]["use_lidar"]
    assert all(row["sample_token"] == token for token, rows in content["results"].items() for row in rows)


def test_it_trains_in_mixed_precision(bevfusion, teacher: Path) -> None:
    words = ["trainer.precision=bf16-mixed", "callbacks=[checkpoints]", "logger=none", "export=none"]
    folder = bevfusion(f"teacher.checkpoint={teacher}", *words)
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 2


def test_every_term_counts(bevfusion, teacher: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each one has a value and a gradient at the student, with frames without labels in the batch."""
    capfd.readouterr()
    bevfusion(f"teacher.checkpoint={teacher}", "task=check", "export=none")
    shown = [line.replace("│", "|").split("|") for line in capfd.readouterr().out.splitlines()]
    rows = {row[1].strip(): [cell.strip() for cell in row[2:-1]] for row in shown if len(row) == 8}
    terms = {name: row for name, row in rows.items() if row[0] in ("task", "teacher")}
    assert {"transfusion", "crd", "heatmap_mse", "box_response", "label_distillation"} <= set(terms)
    # Nets as raw as these have no query of one class at one place, which box_response compares.
    assert [name for name, row in terms.items() if not float(row[3]) > 0 and name != "box_response"] == []
