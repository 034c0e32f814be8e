"""Files are whole: the old one or the new one."""

import json
import os
import signal
from pathlib import Path
from typing import BinaryIO

import pytest

from kd_runner.runtime import files


def test_a_file_is_replaced_and_its_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.txt"
    files.write_text(path, "old")
    files.write_text(path, "new ä")
    assert path.read_text() == "new ä"
    assert os.listdir(path.parent) == ["x.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_mid_write_leaves_the_old_file_and_no_litter(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def half(file: BinaryIO) -> None:
        file.write(b"ne" * 100_000)
        raise error

    with pytest.raises(error):
        files.replace(path, half)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_a_kill_in_mid_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def half(file: BinaryIO) -> None:
        file.write(b"ne" * 100_000)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        files.replace(path, half)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_the_old_file_is_there_until_the_new_one_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append((path.read_text(), os.fstat(fd).st_size)))
    files.write_text(path, "newer")
    assert seen == [("old", 5)]  # all of the new one was handed to the disk while the old one stood
    assert path.read_text() == "newer"


def test_json_is_standard(tmp_path: Path) -> None:
    """nan and infinity are no JSON; keys are strings; tuples are lists."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    path = tmp_path / "x.json"
    files.write_json(
        path, {"nan": float("nan"), 1: (float("inf"), -float("inf"), 0.1), "deep": [{"flag": True, "no": None}]}
    )
    got = json.loads(path.read_text(), parse_constant=refuse)
    assert got == {"nan": None, "1": [None, None, 0.1], "deep": [{"flag": True, "no": None}]}
