"""task=assistant_chain: each stage is taught by the one before it, and a stopped chain goes on."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from safetensors.torch import load_file

WORDS = [
    "task=assistant_chain",
    "seeds=[0]",
    "task.workers=1",
    "trainer.max_epochs=1",
    "callbacks=[checkpoints]",
    "logger=none",
]
NARROW = "student.net.width_mult:0.25,student.net.aspp_channels:12,student.net.skip_channels:8"
WORDS += ["student.channels_last=true", "hydra.run.dir=chain", f"task.stages.assistant={{{NARROW}}}"]


def test_a_chain_of_two_and_only_what_is_missing_the_second_time(here, tmp_path: Path) -> None:
    here(*WORDS)
    folder = tmp_path / "chain"
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["stages"] == ["assistant", "student"] and list(summary["arms"]) == ["assistant", "student", "direct"]
    assert summary["score"] == summary["arms"]["student"][0]["miou"]

    teacher = OmegaConf.load(folder / "seed0_student" / "config.yaml").teacher
    assistant = OmegaConf.load(folder / "seed0_assistant" / "config.yaml").student
    assert teacher.net == assistant.net and teacher.features == assistant.features and teacher.net.aspp_channels == 12
    assert teacher.channels_last
    assert Path(teacher.checkpoint) == folder / "seed0_assistant" / "student.safetensors"
    sizes = {name: cost["parameters"] for name, cost in summary["costs"].items()}
    assert sizes["assistant"] > sizes["student"] == sizes["direct"]
    # The assistant, not the first teacher, has taught the student.
    student, direct = (load_file(folder / f"seed0_{name}" / "student.safetensors") for name in ("student", "direct"))
    assert any(not (student[name] == direct[name]).all() for name in student)
    assert "| direct | teacher |" in (folder / "report.md").read_text()

    written = {p: p.stat().st_mtime_ns for p in folder.glob("*/metrics.json")}
    for file in (folder / "metrics.json", folder / "seed0_student" / "metrics.json"):
        file.unlink()
    here(*WORDS)
    kept = {p for p, time in written.items() if p.stat().st_mtime_ns == time}
    assert {p.parent.name for p in written.keys() - kept} == {"seed0_student"}
    assert json.loads((folder / "metrics.json").read_text())["arms"] == summary["arms"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+task.stages.assistant={student.net.aspp_chanels:12}"], "aspp_chanels"),
        (["+task.stages.direct={}"], "another run of the chain"),
        (["~task.stages.student"], "two stages"),
        (["+task.stages.assistant={student.features:{logits:':'}}"], "student.features has no 'high'"),
    ],
)  # fmt: skip
def test_a_stage_that_cannot_work_is_named_before_any_training(here, tmp_path, capfd, words, message) -> None:
    with pytest.raises(SystemExit):
        here(*WORDS, *words)
    assert message in capfd.readouterr().out
    assert not list(tmp_path.glob("chain/*/metrics.json"))


def test_the_assistant_must_be_named(here, capfd) -> None:
    with pytest.raises(SystemExit):
        here("task=assistant_chain", "task.stages.assistant=???")
    assert "task.stages.assistant is not set" in capfd.readouterr().out
