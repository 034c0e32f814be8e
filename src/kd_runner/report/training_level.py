"""Whether a student was trained at all: its score against that of a prediction that is always the same."""

from collections.abc import Iterable, Mapping
from typing import Any

GUIDE = "docs/guides/reading_a_report.md says how long"
MARGIN = 0.02
"""Fraction of the way from the constant prediction to a perfect score below which a student counts as not trained."""


def constant_level(metrics: Iterable[Any], monitor: str) -> float | None:
    """The monitored metric of a constant prediction; None where no metric knows it.

    Args:
        metrics: metrics that have been computed; those that know it have `constant_levels`, name to value.
        monitor: name of the metric.

    Returns:
        The level, in units of the metric, or None.
    """
    for metric in metrics:
        levels = getattr(metric, "constant_levels", {})
        if monitor in levels:
            return float(levels[monitor])
    return None


def untrained_sentence(monitor: str, scores: Mapping[str, float], level: float | None) -> str | None:
    """One line that names the students which are no better than a constant prediction; None where all are.

    Args:
        monitor: name of the metric, in 0..1.
        scores: name of a student to its score.
        level: the score of the constant prediction; None where it is not known.

    Returns:
        The line, as markdown, or None; None also where the level is not known.
    """
    if level is None:
        return None
    low = {name: score for name, score in scores.items() if not score > level + MARGIN * (1 - level)}
    if not low:
        return None
    names = ", ".join(f"{name} {score:.4f}" for name, score in low.items())
    constant = "finding nothing" if level == 0 else "predicting the most frequent class"
    return (
        f"**not trained**: the student is at the level of {constant} ({monitor} {level:.4f}; {names}). Nothing can be "
        f"concluded from it but that it needs a longer schedule ({GUIDE})."
    )
