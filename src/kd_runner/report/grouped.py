"""Runs side by side: experiments and scales apart, seeds together."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kd_runner.report.runs import Run, Unread
from kd_runner.report.statistics import Estimate, Gain, estimate, gain, gap_closed, harder, verdicts
from kd_runner.runtime.result_keys import result_settings

# What tells seeds apart, or only says which task ran the training.
_NOT_COMPARED = {"seed", "seeds", "task"}
# What only a distilled run reads.
_DISTILLATION = {"kd", "teacher"}
# Below it: the length that a run for another one's seconds would have had. Its own differs from seed to seed.
_LENGTH_OF_TWIN = "task.length_of_twin."


@dataclass
class Row:
    """Runs that differ in their seed alone.

    Attributes:
        label: arm, and the settings in which it differs from other rows of that arm.
        runs: one per seed.
        control: the row without distillation that is the same otherwise (but for its length, where it trains for as
            long as another arm), where there is one; of several the harder one.
        against: paired gain over the control.
        closed_percent: percent of the gap between control and teacher that is closed.
        verdict: of the gain, Holm-corrected over all rows that are compared with the same control; a row with a null
            teacher stands alone.
    """

    label: str
    runs: list[Run]
    control: "Row | None" = None
    against: Gain | None = None
    closed_percent: float = math.nan
    verdict: str = ""

    @property
    def mean(self) -> Estimate:
        return estimate([run.score for run in self.runs])

    @property
    def is_teacher(self) -> bool:
        return self.runs[0].arm.startswith("teacher")

    def metric(self, name: str) -> float:
        """Mean over the seeds, of those where it is a number.

        Args:
            name: the metric; of a class `kind/class`.

        Returns:
            The mean, in units of the metric; nan where no seed has a number.
        """
        values = [run.metrics[name] for run in self.runs if not math.isnan(run.metrics.get(name, math.nan))]
        return sum(values) / len(values) if values else math.nan

    def cost(self, name: str) -> float:
        """Mean over the runs that know this cost, nan if none does.

        Args:
            name: a key of `Run.costs`: `parameters`, `macs` (multiply-adds of one sample), `weights_bytes`, `torch_ms`
                and `onnxruntime_ms` (milliseconds), `steps` or `seconds`.

        Returns:
            The mean, in the unit of that cost.
        """
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
        return next((row for row in self.rows if row.is_teacher), None)

    @property
    def weights(self) -> list[Mapping[str, Any]]:
        """The ways in which the weights of the runs were chosen, each once."""
        kinds = {json.dumps(run.weights, sort_keys=True): run.weights for row in self.rows for run in row.runs}
        return [weights for weights in kinds.values() if weights]


def group(runs: Iterable[Run]) -> tuple[list[Section], list[Unread]]:
    """Sections, and runs that are left out because a later one repeats them.

    Args:
        runs: finished runs of any experiments, as `runs.collect` reads them.

    Returns:
        Sections, sorted by experiment, scale and metric, the teacher first in each; and the repeated runs, with the
        reason. Of two runs of one seed that are the same otherwise, the one whose folder changed last counts; a teacher
        that is measured again is not listed.
    """
    members: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        members.setdefault((run.experiment, run.scale, run.monitor), []).append(run)
    sections, repeated = [], []
    for key, runs_of_section in sorted(members.items()):
        rows, left_out = _rows(runs_of_section)
        repeated += left_out
        section = Section(*key, rows)
        _label(rows)
        _compare(section)
        section.rows.sort(key=lambda row: (not row.is_teacher, row.runs[0].settings["kd.enabled"], row.runs[0].arm))
        sections.append(section)
    return sections, repeated


def _rows(runs: Sequence[Run]) -> tuple[list[Row], list[Unread]]:
    rows: dict[str, dict[Any, Run]] = {}
    left_out = []
    for run in sorted(runs, key=lambda run: run.folder.stat().st_mtime if run.folder.exists() else 0.0):
        same = rows.setdefault(_key(run), {})
        before = same.get(run.seed)
        if before is not None and before.arm != "teacher":
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


def _relevant(run: Run, with_distillation: bool = True) -> dict[str, Any]:
    """Settings that the run's result depends on.

    Args:
        run: a run; one without distillation depends on no setting of distillation.
        with_distillation: False leaves out what only distillation reads: what is left must be equal for a control.
    """
    settings = result_settings(dict(run.settings))
    twin = {
        key.removeprefix(_LENGTH_OF_TWIN): value for key, value in settings.items() if key.startswith(_LENGTH_OF_TWIN)
    }
    kept = {
        key: value
        for key, value in {**settings, **twin}.items()
        if key.partition(".")[0] not in _NOT_COMPARED
        and not (key.endswith(".seed") and value == run.seed)  # a part that follows the seed
    }
    if run.weights:  # a score of the best checkpoint is not compared with one of the last weights
        kept["weights"] = run.weights["chosen"]
    if with_distillation and (run.settings["kd.enabled"] or run.arm == "teacher"):
        return kept
    terms = {key.split(".")[1] for key, value in kept.items() if key.startswith("loss.") and "teacher." in str(value)}
    return {
        key: value
        for key, value in kept.items()
        if key.split(".")[0] not in _DISTILLATION
        and not key.startswith(("data.unlabeled", "callbacks.kd_schedule"))
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


def _compare(section: Section) -> None:
    """Give every distilled row its harder control, gain and verdict."""
    students = [row for row in section.rows if _is_student(row)]
    distilled = [(row, _base(row)) for row in students if _is_distilled(row)]
    comparisons: dict[int, list[tuple[Row, Gain, str]]] = {}
    for control in (row for row in students if not _is_distilled(row)):
        base = _base(control)
        pairs = [(row, _pairs(control, row)) for row, other in distilled if other == base]
        gains = [(row, gain(*zip(*scores))) for row, scores in pairs if scores]
        nulls = [pair for pair in gains if pair[0].runs[0].settings.get("kd.null_teacher")]
        for family in ([pair for pair in gains if pair not in nulls], *([pair] for pair in nulls)):
            for (row, one), verdict in zip(family, verdicts([one for _, one in family])):
                comparisons.setdefault(id(row), []).append((control, one, verdict))
    for row, _ in distilled:
        if not (of_row := comparisons.get(id(row))):
            continue
        hardest = harder([one for _, one, _ in of_row], [verdict for *_, verdict in of_row])
        row.control, row.against, row.verdict = of_row[hardest]
        if section.teacher is not None:
            control_mean, mean = (sum(scores) / len(scores) for scores in zip(*_pairs(row.control, row)))
            row.closed_percent = gap_closed(control_mean, mean, section.teacher.mean.mean)


def _pairs(control: Row, row: Row) -> list[tuple[float, float]]:
    """Scores of both rows, for every seed that both have."""
    before = {run.seed: run.score for run in control.runs}
    return [(before[run.seed], run.score) for run in row.runs if run.seed in before]


def _is_student(row: Row) -> bool:
    return not row.is_teacher and row.runs[0].seed is not None


def _is_distilled(row: Row) -> bool:
    return bool(row.runs[0].settings["kd.enabled"])


def _base(row: Row) -> str:
    """Equal for a distilled row and its control."""
    return json.dumps(_relevant(row.runs[0], with_distillation=False), sort_keys=True, default=str)


def classes(rows: Sequence[Row]) -> Mapping[str, list[str]]:
    """Metrics that have a value per class: kind to the classes.

    Args:
        rows: the rows.

    Returns:
        Kind of metric (`iou` of `iou/car`) to its classes, in the order of the metrics; kinds with one class are left
        out.
    """
    kinds: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for run in row.runs for name in run.metrics if "/" in name):
        kind, _, label = name.partition("/")
        kinds.setdefault(kind, []).append(label)
    return {kind: labels for kind, labels in kinds.items() if len(labels) > 1}
