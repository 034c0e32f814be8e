"""task=compare: equal starts, every arm and seed, one honest report."""

import json
from pathlib import Path

import pytest

from tests.tasks.onnx_metadata import onnx_metadata


def test_compare(here, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["task=compare", "seeds=[0,1]", "trainer.max_epochs=1", "callbacks=[checkpoints]", "logger=none"]
    here(*words, "export.samples=2")
    (folder,) = (p.parent for p in (tmp_path / "outputs" / "voc_kd").glob("*/table.csv"))
    summary = json.loads((folder / "metrics.json").read_text())
    assert list(summary["arms"]) == ["undistilled", "equal_seconds", "distilled"]
    assert all(len(runs) == 2 for runs in summary["arms"].values())
    assert summary["steps"]["undistilled"] == summary["steps"]["distilled"] == 3
    costs = {arm: runs[1] for arm, runs in summary["training_cost"].items()}
    assert costs["distilled"]["samples"] == 3 * (4 + 2) and costs["undistilled"]["samples"] == 3 * 4
    assert 0 < costs["distilled"]["teacher_seconds"] < costs["distilled"]["seconds"]
    pace = costs["undistilled"]["seconds"] / costs["undistilled"]["steps"]
    assert costs["equal_seconds"]["steps"] == max(1, round(costs["distilled"]["seconds"] / pace))
    starts = [(folder / f"seed0_{arm}" / "student_untrained.safetensors").read_bytes() for arm in summary["arms"]]
    assert len(set(starts)) == 1
    assert starts[0] != (folder / "seed1_distilled" / "student_untrained.safetensors").read_bytes()
    gains = [b["miou"] - a["miou"] for a, b in zip(summary["arms"]["undistilled"], summary["arms"]["distilled"])]
    assert summary["gains"]["distilled"]["against"]["undistilled"]["mean"] == pytest.approx(sum(gains) / 2)
    report = (folder / "report.md").read_text()
    for word in ("Scale **mini**", "onnxruntime, ms", "iou/background", "± gain", "multiply-adds", "teacher s",
                 "the harder control", "`equal_seconds` trains for as long as `distilled`",
                 "VOCSegmentation, split unlabeled", "Weights: those after the last step"):  # fmt: skip
        assert word in report
    assert set(summary["gains"]) == {"distilled"}
    assert "<svg" in (folder / "comparison.html").read_text()
    assert (folder / "model.onnx").exists() and (folder / "comparison.png").stat().st_size > 5000
    student, teacher = (onnx_metadata(path / "model.onnx") for path in (folder, folder / "teacher"))
    assert student["scores"] == {"miou": summary["arms"]["distilled"][0]["miou"]}
    assert teacher["scores"] == {"miou": summary["teacher"]["miou"]} and teacher["experiment"] == "voc_kd"
    assert student["teacher_sha256"] == teacher["student_sha256"]
    assert summary["costs"]["student"]["parameters"] < summary["costs"]["teacher"]["parameters"] * 100


def test_a_comparison_does_only_what_is_missing(here, tmp_path: Path) -> None:
    words = ["task=compare", "seeds=[0]", "task.workers=1", "trainer.max_epochs=1"]
    words += ["callbacks=[checkpoints]", "logger=none", "export=none"]
    here(*words)
    (folder,) = (p.parent for p in (tmp_path / "outputs" / "voc_kd").glob("*/table.csv"))
    before = json.loads((folder / "metrics.json").read_text())
    kept, redone = (folder / f"seed0_{arm}" / "metrics.json" for arm in ("undistilled", "distilled"))
    written = kept.stat().st_mtime_ns
    for file in (folder / "metrics.json", redone):
        file.unlink()
    here(*words, f"resume={folder}")
    assert kept.stat().st_mtime_ns == written and redone.exists()
    assert json.loads((folder / "metrics.json").read_text())["training_cost"] == before["training_cost"]
    assert json.loads((folder / "metrics.json").read_text())["arms"] == before["arms"]
    here(*words, f"resume={folder}", "seeds=[0,1]")
    after = json.loads((folder / "metrics.json").read_text())
    assert kept.stat().st_mtime_ns == written and [runs[0] for runs in after["arms"].values()] == [
        runs[0] for runs in before["arms"].values()
    ]
    assert after["seeds"] == [0, 1] and len(after["arms"]["distilled"]) == 2
    with pytest.raises(SystemExit):  # fewer seeds: another run
        here(*words, f"resume={folder}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seeds=[0,1,0]"], "seeds=[0,1,0]: expected a list of different seeds"),
        (["loss=[cosine_features]"], "task.arms.undistilled: it has no loss to train with"),
        (["+task.arms.other={kd.temprature:2}"], "temprature"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_trains(here, tmp_path, capfd, words, message) -> None:
    with pytest.raises(SystemExit):
        here("task=compare", "hydra.run.dir=compare", *words)
    assert message in capfd.readouterr().out
    assert not list(tmp_path.glob("compare/seed*"))
