"""Runs side by side: experiments and scales apart, seeds together."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kd_runner.report.runs import Run, Unread
from kd_runner.report.statistics import Estimate, estimate, gain, gap_closed, verdict

# What makes no other result: two runs that differ in these alone are one row.
_FREE = {"seed", "seeds", "resume", "cache", "logger", "export", "callbacks", "threads", "task"}
# What only a distilled run reads.
_DISTILLING = {"kd", "teacher"}


@dataclass
class Row:
    """Runs that differ in their seed alone.

    Attributes:
        label: arm, and the settings in which it differs from other rows of that arm.
        against: gain over the row without distillation that is the same otherwise, where there is one.
    """

    label: str
    runs: list[Run]
    control: "Row | None" = None
    against: Estimate | None = None
    closed_percent: float = math.nan

    @property
    def mean(self) -> Estimate:
        return estimate([run.score for run in self.runs])

    @property
    def teaches(self) -> bool:
        return self.runs[0].arm.startswith("teacher")

    @property
    def verdict(self) -> str:
        return "" if self.against is None else verdict(self.against)

    def metric(self, name: str) -> float:
        """Mean over the seeds, of those where it is a number."""
        values = [run.metrics[name] for run in self.runs if not math.isnan(run.metrics.get(name, math.nan))]
        return sum(values) / len(values) if values else math.nan

    def cost(self, name: str) -> float:
        values = [run.costs[name] for run in self.runs if name in run.costs]
        return sum(values) / len(values) if values else math.nan


@dataclass
class Section:
    """One experiment at one scale: what may be compared."""

    experiment: str
    scale: str
    monitor: str
    rows: list[Row] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.experiment} at scale {self.scale}"

    @property
    def teacher(self) -> Row | None:
        return next((row for row in self.rows if row.teaches), None)


def group(runs: Iterable[Run]) -> tuple[list[Section], list[Unread]]:
    """Sections, and runs that are left out because a later one repeats them."""
    sections: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        sections.setdefault((run.experiment, run.scale, run.monitor), []).append(run)
    found, repeated = [], []
    for key, members in sorted(sections.items()):
        rows, left_out = _rows(members)
        repeated += left_out
        section = Section(*key, rows)
        _label(rows)
        for row in rows:
            _compare(row, section)
        section.rows.sort(key=lambda row: (not row.teaches, row.runs[0].settings["kd.enabled"], row.runs[0].arm))
        found.append(section)
    return found, repeated


def _rows(runs: Sequence[Run]) -> tuple[list[Row], list[Unread]]:
    rows: dict[str, dict[Any, Run]] = {}
    left_out = []
    for run in sorted(runs, key=lambda run: run.folder.stat().st_mtime if run.folder.exists() else 0.0):
        same = rows.setdefault(_key(run), {})
        if (before := same.get(run.seed)) is not None and before.arm != "teacher":
            left_out.append(Unread(before.folder, f"repeated by {run.folder}: the later one counts"))
        same[run.seed] = run
    members = [[same[seed] for seed in sorted(same, key=str)] for same in rows.values()]
    return [Row(runs[0].arm, runs) for runs in members], left_out


def _key(run: Run) -> str:
    """Equal for runs that differ in their seed alone."""
    settings = _relevant(run)
    if run.arm == "teacher":  # measured, not trained
        settings = {key: value for key, value in settings.items() if key.startswith(("teacher.", "data.val."))}
    return run.arm + json.dumps(settings, sort_keys=True, default=str)


def _relevant(run: Run, distilling: bool = True) -> dict[str, Any]:
    """Settings that the run depends on; without those of distillation where it has none, or where told so."""
    kept = {
        key: value
        for key, value in run.settings.items()
        if key.split(".")[0] not in _FREE
        and not (key.endswith(".seed") and value == run.seed)  # a part's seed that follows the run's
    }
    if distilling and (run.settings["kd.enabled"] or run.arm == "teacher"):
        return kept
    terms = {key.split(".")[1] for key, value in kept.items() if key.startswith("loss.") and "teacher." in str(value)}
    return {
        key: value
        for key, value in kept.items()
        if key.split(".")[0] not in _DISTILLING
        and not key.startswith("data.unlabeled")
        and not (key.startswith("loss.") and key.split(".")[1] in terms)
    }


def _label(rows: list[Row]) -> None:
    """Name the settings that differ between rows of one arm."""
    for arm in {row.label for row in rows}:
        same = [row for row in rows if row.label == arm]
        settings = [_relevant(row.runs[0]) for row in same]
        every = dict.fromkeys(key for one in settings for key in one)
        differing = [key for key in every if len({str(one.get(key)) for one in settings}) > 1]
        roots = {key for key in differing if any(other.startswith(f"{key}.") for other in differing)}
        shown = [key for key in differing if not any(key.startswith(f"{root}.") for root in roots)]
        for row, one in zip(same, settings):
            words = [f"{key}={_short(one[key])}" for key in shown if key in one]
            row.label = ", ".join([arm, *words[:4], *(["..."] if len(words) > 4 else [])])


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 40 else f"...{text[-37:]}"


def _compare(row: Row, section: Section) -> None:
    first = row.runs[0]
    if row.teaches or not first.settings["kd.enabled"] or first.seed is None:
        return
    wanted = json.dumps(_relevant(first, distilling=False), sort_keys=True, default=str)
    for control in section.rows:
        other = control.runs[0]
        if control.teaches or other.settings["kd.enabled"] or other.seed is None:
            continue
        if json.dumps(_relevant(other, distilling=False), sort_keys=True, default=str) == wanted:
            before = {run.seed: run.score for run in control.runs}
            pairs = [(before[run.seed], run.score) for run in row.runs if run.seed in before]
            if pairs:
                row.control, row.against = control, gain(*zip(*pairs))
                if section.teacher is not None:
                    before_all, after_all = (sum(scores) / len(scores) for scores in zip(*pairs))
                    row.closed_percent = gap_closed(before_all, after_all, section.teacher.mean.mean)


def classes(rows: Sequence[Row]) -> Mapping[str, list[str]]:
    """Metrics that have a value per class: kind to the classes."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for run in row.runs for name in run.metrics if "/" in name):
        kind, _, label = name.partition("/")
        found.setdefault(kind, []).append(label)
    return {kind: labels for kind, labels in found.items() if len(labels) > 1}
