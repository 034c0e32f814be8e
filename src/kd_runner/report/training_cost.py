"""What the arms of a comparison cost in training: columns of a table, and what they mean."""

from collections.abc import Mapping
from typing import Any

COST_COLUMNS = ("samples seen", "teacher s", "student s", "energy, kJ")
CLOCKS = {
    "processor": "processor time of the process",
    "wall": "wall time",
}
# Below this fraction of the seconds that it should have had, a control is said to be short.
_ENOUGH = 0.97


def mean_cost(summary: Mapping[str, Any], arm: str) -> dict[str, Any] | None:
    """Mean over the seeds of what the training of an arm cost; None where a run did not record it.

    Args:
        summary: as `comparison.summarize` makes it.
        arm: the arm.

    Returns:
        `seconds` in the optimizer steps by the `clock` (a key of `CLOCKS`), `teacher_seconds` (the part in the
        teacher's forward passes), `steps`, `samples` (labeled and unlabeled), and `joules` (energy; None where it is
        not known, or runs shared the machine).
    """
    runs = summary.get("training_cost", {}).get(arm, [])
    if not runs or not all(runs):
        return None
    names = ("seconds", "teacher_seconds", "steps", "samples")
    means: dict[str, Any] = {name: sum(run[name] for run in runs) / len(runs) for name in names}
    joules = [run["joules"] for run in runs]
    known = None not in joules and not summary.get("side_by_side")  # a package counts every run on it
    return {**means, "joules": sum(joules) / len(runs) if known else None, "clock": runs[0]["clock"]}


def cost_cells(summary: Mapping[str, Any], arm: str) -> list[Any]:
    """Cells of `COST_COLUMNS`; None for what is unknown.

    Args:
        summary: the comparison, as `comparison.summarize` makes it.
        arm: the arm.

    Returns:
        Means over the seeds: samples, seconds of the teacher and of all else, kilojoules.
    """
    cost = mean_cost(summary, arm)
    if cost is None:
        return [None] * len(COST_COLUMNS)
    teacher, joules = cost["teacher_seconds"], cost["joules"]
    student = cost["seconds"] - teacher
    return [round(cost["samples"]), teacher or None, student, None if joules is None else joules / 1000]


def cost_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What the seconds are, and what the arms that train for another one's seconds had of them.

    Args:
        summary: the comparison, as `comparison.summarize` makes it. `seconds_of`, where it is there, names to an arm
            the one whose seconds it had.

    Returns:
        The sentences, as markdown; empty where no arm recorded its cost.
    """
    costs = {arm: cost for arm in summary["arms"] if (cost := mean_cost(summary, arm)) is not None}
    if not costs:
        return []
    clock = CLOCKS[next(iter(costs.values()))["clock"]]
    lines = [
        f"`teacher s` and `student s` are {clock} in the optimizer steps, the teacher's forward passes and all else "
        "(data, student, losses, optimizer); `seconds` is the wall time of the whole run, validation and report too."
    ]
    for arm, other in summary.get("seconds_of", {}).items():
        if arm not in costs or other not in costs:
            continue
        own, given = costs[arm], costs[other]
        line = (
            f"`{arm}` had {own['seconds']:.1f} s in {own['steps']:,.0f} steps, `{other}` {given['seconds']:.1f} s in "
            f"{given['steps']:,.0f} steps (means over the seeds)."
        )
        if own["seconds"] < _ENOUGH * given["seconds"]:
            line += f" It had only {own['seconds'] / given['seconds']:.0%} of them: the machine was uneven."
        lines.append(line)
    return lines
