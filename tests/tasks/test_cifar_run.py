"""`experiment=cifar_kd`: the mini run to its ONNX file, and the published sizes for one step."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_runner.cli import api
from kd_runner.config import build, entries
from kd_runner.distillation.loss_terms import weighted_total
from kd_runner.models.classification.cifar_resnet import CifarResNet


def test_from_the_shipped_teacher_to_onnx(started: Callable[..., Path], tmp_path: Path) -> None:
    words = ["experiment=cifar_kd", f"data.root={tmp_path / 'data'}", "++data.prepare.num_test=60", "logger=none"]
    folder = started(*words, "trainer.max_epochs=1", "scheduler.milestones=[]", "export.samples=4")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 5 and metrics["onnx"]["agreement"] == 1.0
    assert set(metrics["metrics"]) == {"top1", "top5"} and 0 <= metrics["metrics"]["top1"] <= metrics["metrics"]["top5"]


def test_the_full_configuration_takes_a_step(tmp_path: Path) -> None:
    """CIFAR-100's files, a teacher as RepDistiller saves it, the CRD paper's sizes, loss and schedule."""
    folder, random = tmp_path / "cifar-100-python", np.random.default_rng(0)
    folder.mkdir()
    for split in ("train", "test"):
        content = {"data": random.integers(0, 256, (2, 3072), np.uint8), "fine_labels": [0, 99]}
        (folder / split).write_bytes(pickle.dumps(content, protocol=2))
    torch.save({"epoch": 240, "model": CifarResNet(32).state_dict(), "best_acc": 79.42}, tmp_path / "ckpt.pth")
    words = [
        "experiment=cifar_kd",
        "scale=full",
        f"data.root={tmp_path}",
        f"teacher.checkpoint={tmp_path / 'ckpt.pth'}",
    ]
    cfg = entries.clean(api.compose(words))
    assert (cfg.trainer.max_epochs, list(cfg.scheduler.milestones)) == (240, [150, 180, 210])
    assert (cfg.optimizer.lr, cfg.optimizer.momentum, cfg.optimizer.weight_decay) == (0.05, 0.9, 5e-4)
    cfg.data.batch_size = 2
    data, teacher = build.data(cfg), build.teacher(cfg)
    student = build.student(cfg, teacher, data)
    sizes = [sum(p.numel() for p in one.net.parameters()) for one in (teacher, student)]
    assert sizes == [7_433_860, 1_233_540]
    module = build.distiller(cfg, student, teacher, data.example())
    values = module.loss_values(module.sources(data.example(), module.loss_inputs))
    total = weighted_total(module.terms, values, module.alpha)
    assert float(total) == pytest.approx(0.1 * float(values["task_ce"]) + 0.9 * float(values["kl_logits"]), rel=1e-5)
    total.backward()
    assert all(parameter.grad is not None for parameter in student.net.parameters())
