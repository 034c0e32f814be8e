"""What a fault case is, and how it is tried."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

MESSAGE_LINES = 3


@dataclass(frozen=True)
class Case:
    """A command with a planted fault.

    Args:
        system: which of the four, `voc`, `unet`, `orion`, `bevfusion`.
        words: of the command line, after those that make the system small. `{folder}` is the case's own folder.
        message: regular expression of the message: the key or file, and the reason.
        arrange: plants the fault in the case's folder, in whose `data` the data set is copied where `copy` is set.
        copy: give the case a copy of the data set.
    """

    system: str
    words: str
    message: str
    arrange: Callable[[Path], Any] | None = None
    copy: bool = False


class Commands:
    """A server that forks a process for every command."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.faults.server"]
        root = Path(__file__).parents[2]
        self.server = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def run(self, words: list[str], folder: Path, seconds: float = 120) -> tuple[int, str]:
        """Exit code and output of a command started in `folder`."""
        output = folder.with_suffix(".output")
        request = {"words": words, "folder": str(folder), "output": str(output), "seconds": seconds}
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self._answer()), output.read_text(errors="replace")

    def stop(self) -> None:
        self.server.kill()
        self.server.wait()

    def _answer(self) -> str:
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        if not line:
            raise RuntimeError("the server of the fault cases has ended")
        return line.strip()


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def faults_of_answer(case: Case, code: int, output: str) -> list[str]:
    """What is wrong with the answer to a planted fault; empty where it is as it should be."""
    wrong = []
    if code != 1:
        wrong.append(f"exit code {code}")
    if "Traceback" in output:
        wrong.append("a traceback")
    lines = [line for line in output.splitlines() if line.strip()]
    first = next((n for n, line in enumerate(lines) if re.search(case.message, line)), None)
    if first is None:
        wrong.append(f"no line matches {case.message!r}")
    elif len(lines) - first > MESSAGE_LINES:
        wrong.append(f"{len(lines) - first} lines from the message on")
    return wrong
