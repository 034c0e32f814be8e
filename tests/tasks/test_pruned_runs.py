"""A ViT of timm is pruned and distilled from configuration alone: the student is the cut teacher."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kd_runner.distillation import checkpoints
from kd_runner.distillation.student_file import load_student

TOY = """
import os
import torch
from lightning.pytorch import Callback
from torch.utils.data import Dataset

class Colors(Dataset):
    '''Noise with a bright channel, which is the class.'''
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def __getitem__(self, index):
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index))
        image[index % 3] += 0.5
        return {"image": image, "label": torch.tensor(index % 3), "valid": torch.tensor(True)}

class Stop(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == int(os.environ.get("STOP_AFTER", -2)) + 1:
            raise RuntimeError("power cut")
"""
MODEL = """
# @package _global_
teacher:
  net: {_target_: timm.create_model, model_name: vit_tiny_patch16_224, img_size: 16, patch_size: 4, embed_dim: 32,
        depth: 2, num_heads: 4, num_classes: 3}
  inputs: {x: image}
  train_inputs: {}
  features: {logits: ":", block: blocks.1}
  checkpoint: null
  checkpoint_keys: {}
  channels_last: false
student:
  net: ${teacher.net}
  inputs: {x: image}
  train_inputs: {}
  features: {logits: ":", block: blocks.1}
  checkpoint: null
  checkpoint_keys: {}
  init: {_target_: kd_runner.distillation.student.copy_weights, _partial_: true}
  trained: null
"""
EXPERIMENT = """
# @package _global_
defaults:
  - override /model: vit
  - override /data: colors
  - override /loss: [task_ce, kl_logits]
  - override /metric: [accuracy]
  - override /callbacks: [checkpoints, epoch_summary]
  - override /export: none
monitor: accuracy
loss:
  task_ce: {inputs: {target: batch.label}}
"""
DATA = """
root: none
prepare: null
train: {_target_: toy.Colors, count: 24}
val: {_target_: toy.Colors, count: 12}
unlabeled: null
batch_size: 8
val_batch_size: 6
"""
METRIC = """
accuracy:
  inputs: {preds: student.logits, target: batch.label}
  fn: {_target_: torchmetrics.classification.MulticlassAccuracy, num_classes: 3}
"""
PRUNING = """
defaults: [half, {override layout: timm_vit}]
module: ""
num_batches: 2
"""


@pytest.fixture
def vit(tmp_path: Path, started: Callable[..., Path]) -> Callable[..., Path]:
    """`kd_runner` with that configuration, in this process; gives the folder of the run."""
    files = {"model/vit": MODEL, "experiment/vit_kd": EXPERIMENT, "data/colors": DATA, "metric/accuracy": METRIC}
    for name, text in {**files, "pruning/vit_half": PRUNING}.items():
        path = tmp_path / "mine" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "mine" / "toy.py").write_text(TOY)
    shared = ["--config-dir=mine", "experiment=vit_kd", "trainer.max_epochs=2"]
    return lambda *words: started(*shared, *words)


def test_pruned_and_distilled(vit, capfd: pytest.CaptureFixture[str]) -> None:
    teacher = vit("task=train_teacher", "optimizer.lr=3e-3") / "teacher.safetensors"
    folder = vit("pruning=vit_half", f"teacher.checkpoint={teacher}")
    pruning = json.loads((folder / "metrics.json").read_text())["pruning"]
    assert pruning["kept"] == {"heads": [2, 2], "hidden": [64, 64], "channels": []}
    assert pruning["after"]["parameters"] < 0.55 * pruning["before"]["parameters"]

    assert load_student(folder / "student.safetensors")(torch.rand(1, 3, 16, 16)).shape == (1, 3)
    before = load_student(folder / "student_untrained.safetensors").state_dict()
    whole = checkpoints.read(teacher, "teacher")
    assert torch.equal(before["patch_embed.proj.weight"], whole["patch_embed.proj.weight"])
    assert before["blocks.0.mlp.fc1.weight"].shape == (64, 32)
    rows = {tuple(row) for row in whole["blocks.0.mlp.fc1.weight"].tolist()}
    assert {tuple(row) for row in before["blocks.0.mlp.fc1.weight"].tolist()} < rows

    evaluated = vit("task=evaluate", f"student.checkpoint={folder / 'student.safetensors'}", "student.init=null",
                    f"teacher.checkpoint={teacher}")  # fmt: skip
    measured = json.loads((evaluated / "metrics.json").read_text())
    assert measured["metrics"]["student"] == json.loads((folder / "metrics.json").read_text())["metrics"]

    pruned = folder / "student.safetensors"
    taught = vit(f"teacher.checkpoint={pruned}", "student.init=null", "trainer.max_epochs=1")  # it teaches, too
    assert json.loads((taught / "metrics.json").read_text())["steps"] == 3
    capfd.readouterr()
    with pytest.raises(SystemExit):
        vit("pruning=vit_half", f"student.checkpoint={pruned}", "student.init=null", f"teacher.checkpoint={teacher}")
    assert f"pruning: student.checkpoint={pruned} is pruned already" in capfd.readouterr().out


def test_rounds_during_training_and_after_a_resume(vit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["pruning=vit_half", "kd.enabled=false", "student.init=null", "trainer.max_epochs=4",
             "pruning.schedule.end=2", "pruning.schedule.rounds=3", "+callbacks.stop._target_=toy.Stop"]  # fmt: skip
    whole = vit(*words)
    kept = json.loads((whole / "metrics.json").read_text())["pruning"]["kept"]
    assert kept == {"heads": [2, 2], "hidden": [64, 64], "channels": []}
    untrained = checkpoints.read(whole / "student_untrained.safetensors", "student")
    assert 64 < len(untrained["blocks.0.mlp.fc1.weight"]) < 128  # the first of three rounds

    monkeypatch.setenv("STOP_AFTER", "1")
    with pytest.raises((RuntimeError, SystemExit)):
        vit(*words)
    monkeypatch.delenv("STOP_AFTER")
    resumed = vit(*words, "resume=auto")
    assert resumed != whole
    assert (whole / "student.safetensors").read_bytes() == (resumed / "student.safetensors").read_bytes()


def test_rounds_during_training_of_two_processes(vit) -> None:
    """Each cuts the same, and their gradients still meet: the student is that of one process, but for rounding."""
    words = ["pruning=vit_half", "kd.enabled=false", "student.init=null", "trainer.max_epochs=3",
             "pruning.schedule.end=1", "pruning.schedule.rounds=2"]  # fmt: skip
    alone, together = vit(*words), vit(*words, "trainer=ddp", "trainer.devices=2")
    one, two = (checkpoints.read(folder / "student.safetensors", "") for folder in (alone, together))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)


def test_a_part_that_is_not_there(vit, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        vit("pruning=vit_half", "pruning.module=blokcs", "student.init=null", "kd.enabled=false")
    assert "the net has no module 'blokcs'" in capfd.readouterr().out
