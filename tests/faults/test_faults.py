"""Every planted fault: exit code 1, one message with key or file and reason, no traceback, nothing overwritten."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.cases import CASES
from tests.faults.harness import Case, Commands, digests, faults_of_answer


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_fault(case: Case, commands: Commands, words_of: Callable[[Case], list[str]], tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    words = words_of(case)
    if case.arrange is not None:
        case.arrange(folder)
    before = digests(folder)
    code, output = commands.run(words, folder)
    assert faults_of_answer(case, code, output) == [], output[-3000:]
    after = digests(folder)
    assert {name: after.get(name) for name in before} == before
    assert "hostile code ran" not in after


def test_there_are_enough_cases_of_every_system() -> None:
    assert len(CASES) >= 150
    systems = [case.system for case in CASES.values()]
    assert all(systems.count(system) >= 15 for system in ("voc", "unet", "orion", "bevfusion"))


def test_a_sound_command_passes(commands: Commands, tiny: list[str], tmp_path: Path) -> None:
    """The server runs what it is told, and says so."""
    (tmp_path / "case").mkdir()
    code, output = commands.run([*tiny, "task=check", "export=none"], tmp_path / "case")
    assert code == 0 and "Nothing was kept" in output


def test_the_server_answers_as_the_command_does(commands: Commands, cli, tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    code, output = commands.run([*tiny, "kd.alpha=1.5"], tmp_path / "case")
    process = cli("kd.alpha=1.5", cwd=tmp_path / "case")
    assert (code, output) == (process.returncode, process.stdout + process.stderr)
    assert commands.run(["--help"], tmp_path / "case")[0] == 0


def test_a_faulty_answer_is_seen() -> None:
    case = Case("voc", "", "kd.alpha=2: ")
    assert faults_of_answer(case, 1, "kd.alpha=2: the fraction lies in 0..1\n") == []
    assert faults_of_answer(case, 0, "kd.alpha=2: \n") == ["exit code 0"]
    assert "a traceback" in faults_of_answer(case, 1, "Traceback (most recent call last):\nkd.alpha=2: x\n")
    assert faults_of_answer(case, 1, "kd.alpha=2: a\nb\nc\nd\n") == ["4 lines from the message on"]
    assert faults_of_answer(case, 1, "something\n") == ["no line matches 'kd.alpha=2: '"]
