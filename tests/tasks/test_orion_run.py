"""`experiment=orion_kd` from teacher to ONNX, on a world of a few frames."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kd_runner.distillation import checkpoints
from kd_runner.synthetic.driving import bench2drive_writer
from tests.tasks.onnx_metadata import check_metadata

TINY = [
    "experiment=orion_kd", "data.prepare=null", "data.batch_size=2", "data.train.last=2", "data.unlabeled.first=2",
    "data.unlabeled_batch_size=1", "data.val_batch_size=2", "data.steps_per_epoch=2", "data.crop=[32,64]",
    "data.final=[64,64]", "trainer.max_epochs=1", "teacher.net.backbone.embed_dim=32",
    "teacher.net.backbone.head_dim=4", "teacher.net.backbone.num_heads=8", "teacher.net.in_channels=32",
    "teacher.net.embed_dim=16", "teacher.net.hidden=16", "teacher.net.num_query=8", "teacher.net.num_lane=6",
    "teacher.net.num_depths=4", "teacher.net.num_detections=10", "pruning.num_batches=2",
    "teacher.net.backbone.depth=2",
    "teacher.net.backbone.window_block_indexes=[0]", "teacher.features.block_low=img_backbone.blocks.0",
    "teacher.features.block_mid=img_backbone.blocks.0", "teacher.features.block_high=img_backbone.blocks.1",
    "teacher.features.attention_mid=img_backbone.blocks.0.attn.attn_weights",
    "teacher.features.attention_high=img_backbone.blocks.1.attn.attn_weights",
    "teacher.features.token_mask_mid=img_backbone.blocks.0.token_mask",
    "teacher.features.token_mask_high=img_backbone.blocks.1.token_mask",
    "teacher.features.kept_heads_mid=img_backbone.blocks.0.attn.head_index",
    "teacher.features.kept_heads_high=img_backbone.blocks.1.attn.head_index",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "data"
    return bench2drive_writer.write(root, num_train=3, num_val=2, num_frames=1, width=80, height=45)


@pytest.fixture
def orion(started: Callable[..., Path], world: Path) -> Callable[..., Path]:
    return lambda *words: started(*TINY, f"data.root={world}", *words)


@pytest.fixture(scope="module")
def teacher(started_once: Callable[..., Path], world: Path) -> Path:
    words = ["task=train_teacher", "export=none", "callbacks=[checkpoints]"]
    tiny = [word for word in TINY if not word.startswith("pruning.")]  # what nothing reads then is refused
    return started_once(*tiny, f"data.root={world}", *words) / "teacher.safetensors"


def test_from_teacher_to_onnx(orion, teacher: Path) -> None:
    folder = orion(f"teacher.checkpoint={teacher}", "export.samples=2")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["pruning"]["kept"]["heads"] == [4] * 2
    assert metrics["onnx"]["agreement"] > 0.99 and metrics["onnx"]["relative_error"] < 1e-3
    normalization = check_metadata(folder, "orion_kd", num_classes=9)["normalization"]
    assert normalization["channel_order"] == "RGB" and normalization["value_range"] == [0, 255]
    assert normalization["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert (folder / "pictures.png").stat().st_size > 1000

    teacher_weights, student_weights = (
        checkpoints.read(file, "") for file in (teacher, folder / "student.safetensors")
    )
    heads = [name for name in teacher_weights if not name.startswith("img_backbone.")]
    assert heads and all(
        torch.equal(teacher_weights[name], student_weights[name]) for name in heads
    )  # frozen, and the teacher's own
    assert not torch.equal(
        teacher_weights["img_backbone.blocks.0.mlp.w1.weight"], student_weights["img_backbone.blocks.0.mlp.w1.weight"]
    )


def test_it_trains_in_mixed_precision(orion, teacher: Path) -> None:
    words = ["trainer.precision=bf16-mixed", "callbacks=[checkpoints]", "logger=none", "export=none"]
    folder = orion(f"teacher.checkpoint={teacher}", *words)
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 2


def test_the_total_is_the_weighted_sum_of_the_two_sides(orion, teacher: Path, capfd) -> None:
    capfd.readouterr()
    orion(f"teacher.checkpoint={teacher}", "task=check", "export=none")
    shown = [line.replace("│", "|").split("|") for line in capfd.readouterr().out.splitlines()]
    rows = {row[1].strip(): [cell.strip() for cell in row[2:-1]] for row in shown if len(row) == 8}
    total = float(rows["total"][2])
    sides = {"task": 0.3, "teacher": 0.7}
    terms = [row for row in rows.values() if row[0] in sides]
    assert len(terms) == 6
    assert total == pytest.approx(sum(sides[r[0]] * float(r[1]) * float(r[2]) for r in terms), rel=1e-3)
