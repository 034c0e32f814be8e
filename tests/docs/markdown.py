"""Code blocks and commands of the documentation."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:# @package _global_\n)?# (my_kd/\S+)\n")  # Hydra reads its own line at the very top
_INLINE = re.compile(r"`((?:python -m kd_runner|python benchmarks/|python scripts/|scripts/(?:run|test|docs))[^`]*)`")
_SNIPPET = re.compile(r'^--8<-- "(.*)"$', re.MULTILINE)


class Block(NamedTuple):
    """A fenced block; `file` is the path that its first comment names (`# my_kd/...`), or None."""

    page: str
    language: str
    text: str
    file: str | None


def blocks(language: str | None = None) -> list[Block]:
    """All fenced blocks, included files in place of their snippet lines."""
    result = []
    for page in PAGES:
        for kind, text in _FENCE.findall(page.read_text()):
            text = _SNIPPET.sub(lambda match: (ROOT / match[1]).read_text(), text)
            named = _FILE.match(text)
            result.append(Block(str(page.relative_to(ROOT)), kind, text, named[1] if named else None))
    return [block for block in result if language in (None, block.language)]


def commands() -> dict[str, str]:
    """Every command, in a block or between backticks: command -> a page that has it."""
    result: dict[str, str] = {}
    for block in blocks("bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                result.setdefault(shlex.join(words), block.page)
    for page in PAGES:
        text = _FENCE.sub("", page.read_text())
        for command in _INLINE.findall(text):
            result.setdefault(shlex.join(shlex.split(command.replace("\n", " "))), str(page.relative_to(ROOT)))
    return result


def overrides(command: str) -> list[str] | None:
    """The words behind kd_runner in a command that runs it, however it is started; None for any other command."""
    words = shlex.split(command)
    if words[0] == "scripts/run":
        return words[1:] or ["experiment=voc_kd", "task=compare"]
    for position, word in enumerate(words[:-1]):
        if word == "-m" and words[position + 1] == "kd_runner":
            return words[position + 2 :]
    return None
