"""task=league: every method against the student without distillation; a method of a user's own; stopped and gone on."""

import json
import sys
from pathlib import Path

import pytest

LOSS = """
import torch.nn.functional as F


def own_mse(student, teacher):
    return F.mse_loss(student.mean((2, 3)), teacher.mean((2, 3)))


def broken(student, teacher):
    return (student.sum() - student.sum()) / 0.0
"""


def own_folder(folder: Path) -> None:
    """Losses `own_mse` and `broken`, and a method `mixed` of two of them."""
    (folder / "loss").mkdir(parents=True)
    (folder / "method").mkdir()
    (folder / "own_losses.py").write_text(LOSS)
    for name in ("own_mse", "broken"):
        (folder / "loss" / f"{name}.yaml").write_text(
            f"{name}:\n  weight: 0.5\n  inputs: {{student: student.logits, teacher: teacher.logits}}\n"
            f"  fn: {{_target_: own_losses.{name}, _partial_: true}}\n"
        )
    (folder / "method" / "mixed.yaml").write_text("loss: [kl_logits, own_mse]\nset: {loss.kl_logits.weight: 0.25}\n")


def test_league(here, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods of the project and of a user's own folder, by name; after losing one run it trains that alone."""
    own_folder(tmp_path / "mine")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "mine"), *sys.path])
    words = ["task=league", "seeds=[0,1]", "task.workers=1", "trainer.max_epochs=1", "data.steps_per_epoch=2"]
    words += ["callbacks=[checkpoints]", "logger=none", "--config-dir", str(tmp_path / "mine")]
    here(*words, "methods=[own_mse,mixed]")
    (folder,) = (p.parent for p in (tmp_path / "outputs" / "voc_kd").glob("*/table.csv"))
    summary = json.loads((folder / "metrics.json").read_text())
    assert list(summary["arms"]) == ["undistilled", "own_mse", "mixed"]
    assert summary["methods"]["mixed"]["losses"] == {"task_ce": 1.0, "kl_logits": 0.25, "own_mse": 0.5}
    assert summary["methods"]["own_mse"]["losses"] == {"task_ce": 1.0, "own_mse": 0.5}
    for method in summary["methods"].values():
        assert all(0 < fraction < 1 for fraction in method["gradient_share"].values())
    gains = [b["miou"] - a["miou"] for a, b in zip(summary["arms"]["undistilled"], summary["arms"]["own_mse"])]
    assert summary["gains"]["own_mse"]["mean"] == pytest.approx(sum(gains) / 2)
    report = (folder / "report.md").read_text()
    for word in ("| undistilled |", "own_mse", "ms/step", "p (Holm)", "gradient share", "Better than the control"):
        assert word in report
    kept, lost = (folder / f"seed1_{name}" / "metrics.json" for name in ("own_mse", "mixed"))
    written = kept.stat().st_mtime_ns
    for file in (folder / "metrics.json", lost):
        file.unlink()
    here(*words, "methods=[own_mse,mixed,broken]", f"resume={folder}")  # with one more method, which fails
    after = json.loads((folder / "metrics.json").read_text())
    assert kept.stat().st_mtime_ns == written and lost.exists() and after["arms"] == summary["arms"]
    assert "broken" in after["methods"]["broken"]["failed"]
    assert "failed" in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "methods=[]: name at least one"),
        (["methods=[dkdd]"], "there is no method/dkdd.yaml and no loss/dkdd.yaml"),
        (["methods=[multi_teacher]"], "teacher.features has no 'first'"),
    ],
)
def test_what_cannot_compete_is_said_before_anything_trains(here, tmp_path, capfd, words, message) -> None:
    with pytest.raises(SystemExit):
        here("task=league", "hydra.run.dir=league", *words)
    assert message in capfd.readouterr().out
    assert not list(tmp_path.glob("league/seed*"))
