"""Training, measuring, exporting and reporting are stages; an ended run is read-only."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kd_runner.export.exporter import ExportONNX

ONE_EPOCH = ["trainer.max_epochs=1", "callbacks=[checkpoints,epoch_summary]", "export.samples=2"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_failed_export_loses_nothing_and_the_ended_run_is_read_only(
    here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    export = ExportONNX.export

    def refuse(*_: Any) -> dict[str, Any]:
        raise ValueError("no ONNX form")

    monkeypatch.setattr(ExportONNX, "export", refuse)
    with pytest.raises(SystemExit):
        here(*ONE_EPOCH, "logger=csv")
    (folder,) = tmp_path.glob("outputs/voc_kd/*")
    status = json.loads((folder / "status.json").read_text())
    assert status["status"] == "failed" and status["error"] == "ValueError: no ONNX form"
    assert set(status["stages"]) == {"train", "measure"} and status["step"] == 3
    before = json.loads((folder / "metrics.json").read_text())
    assert before["steps"] == 3 and not (folder / "model.onnx").exists()

    monkeypatch.setattr(ExportONNX, "export", export)
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda *_, **__: pytest.fail("trained again"))
    here(*ONE_EPOCH, "logger=csv", "resume=auto")
    after = json.loads((folder / "metrics.json").read_text())
    assert after["metrics"] == before["metrics"] and after["onnx"]["file"] == "model.onnx"
    assert after["seconds"] > before["seconds"]  # of both sessions
    status = json.loads((folder / "status.json").read_text())
    assert status["status"] == "ended" and "error" not in status
    assert (folder / ".hydra" / "overrides.yaml").is_file() and (folder / "run.log").stat().st_size > 0
    assert (folder / "csv" / "version_0" / "metrics.csv").is_file() and (folder / "checkpoints" / "last.ckpt").is_file()

    ended = contents(folder)
    capfd.readouterr()
    weights = f"student.checkpoint={folder / 'student.safetensors'}"
    for words in (["task=evaluate", weights], ["task=export", weights], ["kd.temperature=3"]):
        with pytest.raises(SystemExit) as end:
            here(*ONE_EPOCH, "logger=csv", *words, f"hydra.run.dir={folder}")
        assert end.value.code == 1 and "holds a run of other settings" in capfd.readouterr().out
        logging.shutdown()
        assert contents(folder) == ended

    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    written = load_file(folder / "student.safetensors")
    assert written.keys() and all(torch.equal(value, best[f"net.{name}"]) for name, value in written.items())
