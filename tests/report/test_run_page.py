"""report.md of one training."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from kd_runner.report.provenance import measured_weights, source
from kd_runner.report.run_page import run_page

RESULT: dict[str, Any] = {
    "scale": "mini", "seed": 0, "monitor": "miou", "score": 0.5, "steps": 60, "seconds": 3.2, "parameters": 100,
    "macs": 2000, "weights_bytes": 400, "input": {"x": [1, 3, 8, 8]},
    "metrics": {"miou": 0.5, "iou/cat": 0.5, "iou/dog": float("nan")},
    "weights": {"chosen": "best", "monitor": "miou", "split": "the val split"},
    "data": {"train": {"samples": 12, "source": "VOC, split train"}, "unlabeled": None,
             "val": {"samples": 7, "source": "VOC, split val"}},
}  # fmt: skip
CFG = OmegaConf.create(
    {
        "task": {"_target_": "kd_runner.tasks.train.train"},
        "kd": {"enabled": True},
        "teacher": {"net": {"_target_": "a.b.fcn_resnet"}, "checkpoint": "/x/teacher.safetensors"},
        "student": {"net": {"_target_": "a.b.mobilenet"}, "checkpoint": None},
        "data": {"val": {"_target_": "a.VOC", "split": "val"}},
        "monitor": "miou",
    }
)


def test_teacher_student_data_and_weights_are_named(tmp_path: Path) -> None:
    page = run_page(CFG, RESULT, tmp_path)
    for line in ("| student | mobilenet |", "| teacher | fcn_resnet, weights teacher.safetensors |",
                 "| train data | 12 samples of VOC, split train |"):  # fmt: skip
        assert line in page
    assert "the checkpoint with the best miou on the val split, the split that is reported" in page
    assert "unlabeled" not in page and "| cat | 0.5000 |" in page and "dog" not in page


def test_a_run_without_distillation_names_no_teacher(tmp_path: Path) -> None:
    cfg = OmegaConf.merge(CFG, {"kd": {"enabled": False}})
    last = {**RESULT, "weights": measured_weights(CFG, "last")}
    page = run_page(cfg, last, tmp_path)  # type: ignore[arg-type]
    assert "| teacher | none (kd.enabled=false) |" in page and "Weights: those after the last step" in page


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"_target_": "a.VOC", "split": "rest", "root": "/data"}, "VOC, split rest"),
        ({"_target_": "a.Draws", "dataset": {"_target_": "a.NuScenes", "version": "v1", "split": "train"}},
         "NuScenes, version v1, split train"),
        ({"_target_": "a.Own"}, "Own"),
    ],
)  # fmt: skip
def test_a_pool_is_named_by_what_chooses_its_samples(node: dict[str, Any], words: str) -> None:
    assert source(node) == words
