"""A page of docs/results from the folder of a comparison: what stands above its marker is kept."""

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_runner.errors import ConfigError
from kd_runner.runtime.files import read_json, write_text

MARKER = "<!-- the record: written by scripts/records -->"
_PICTURES = "pictures.png"


def write(page: Path, folder: Path, command: Sequence[str], chosen: str, machine: str) -> list[Path]:
    """Write the record below the marker of a page, and its figures beside the page.

    Args:
        page: the page; where there is none, one with a title is made.
        folder: an ended comparison.
        command: words of the command that made it.
        chosen: on which data settings were chosen, in a sentence.
        machine: what it ran on, in a few words.

    Returns:
        The files written.

    Raises:
        ConfigError: the page has no marker, or the comparison has not ended.
    """
    report = folder / "report.md"
    if not report.is_file():
        raise ConfigError(f"{folder}: no report.md: the comparison has not ended")
    title, *rest = report.read_text().rstrip().split("\n\n")
    figures = {"comparison.png": folder / "comparison.png", _PICTURES: _pictures(folder)}
    written = []
    body = "\n\n".join(rest[:-1])  # the last paragraph says where files of the run's folder lie
    for name, file in figures.items():
        if file is not None and file.is_file():
            written.append(page.with_name(f"{page.stem}{'' if name == 'comparison.png' else '_pictures'}.png"))
            page.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, written[-1])
            body = body.replace(f"]({name})", f"]({written[-1].name})")
    sections = [above(page, title), MARKER, _header(folder, command, chosen, machine), body]
    if (pictures := page.with_name(f"{page.stem}_pictures.png")) in written:
        sections += ["## Pictures", f"![validation samples of the distilled student]({pictures.name})"]
    write_text(page, "\n\n".join(sections) + "\n")
    return [page, *written]


def above(page: Path, title: str) -> str:
    """What stands above the marker of a page, or the title of a new one.

    Args:
        page: the page; it need not exist.
        title: heading of a new page, as markdown.

    Returns:
        The text, without blank lines at its end.

    Raises:
        ConfigError: the page has no marker.
    """
    if not page.is_file():
        return title
    kept, marker, _ = page.read_text().partition(MARKER)
    if not marker:
        raise ConfigError(f"{page} has no line {MARKER!r}: put it where the record is to begin")
    return kept.rstrip()


def _header(folder: Path, command: Sequence[str], chosen: str, machine: str) -> str:
    status, seeds = read_json(folder / "status.json"), sorted(folder.glob("seed*/status.json"))
    training = sum(read_json(file).get("seconds", 0.0) for file in seeds)
    return (
        f"`{shlex.join(command)}`, {_duration(status['seconds'])} ({_duration(training)} of runs, side by side) on "
        f"{machine}. {chosen}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts: Mapping[str, int] = {"h": hours, "min": minutes, "s": rest}
    return " ".join(f"{value} {unit}" for unit, value in parts.items() if value) or "0 s"


def _pictures(folder: Path) -> Path | None:
    """Pictures of the first run of the arm `distilled`."""
    pictures: list[Any] = sorted(folder.glob(f"seed*_distilled/{_PICTURES}"))
    return pictures[0] if pictures else None
