"""The summary of several arms over several seeds: what task=compare and task=assistant_chain report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kd_runner.report.statistics import estimate, gain, gap_closed, verdicts
from kd_runner.report.tables import Table, without_empty

Summary = dict[str, Any]
READING = (
    "± is the half-width of the 95 % interval over the seeds (Student's t; paired by seed for the gains). Verdicts "
    "come from paired t-tests at 5 %"
)


def summarize(
    monitor: str,
    seeds: Sequence[int],
    teacher: Mapping[str, float],
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    score_arm: str,
    control: str | None,
    treated: Sequence[str],
) -> Summary:
    """Scores, gains and verdicts, as written to `metrics.json`.

    Args:
        monitor: name of the metric that is compared.
        seeds: seeds of the runs.
        teacher: the teacher's metrics.
        results: arm to the contents of its runs' `metrics.json`, in the order of `seeds`.
        score_arm: arm whose mean is the score of the whole.
        control: arm that the treated ones are compared with; None for no gains.
        treated: arms that get a gain and a verdict, Holm-corrected over all of them.
    """
    scores = {name: [run["metrics"][monitor] for run in runs] for name, runs in results.items()}
    gains = {} if control is None else _gains(scores, control, treated, teacher[monitor])
    first = next(iter(results.values()))[0]
    return {
        "scale": first["scale"],
        "monitor": monitor,
        "seeds": list(seeds),
        "teacher": dict(teacher),
        "arms": {name: [run["metrics"] for run in runs] for name, runs in results.items()},
        "steps": {name: runs[0]["steps"] for name, runs in results.items()},
        "seconds": {name: sum(run["seconds"] for run in runs) / len(runs) for name, runs in results.items()},
        "weights": first.get("weights"),
        "protocols": first.get("protocols"),
        "data": {name: runs[0].get("data") for name, runs in results.items()},
        "gains": gains,
        "score": sum(scores[score_arm]) / len(scores[score_arm]),
    }


def _gains(
    scores: Mapping[str, Sequence[float]], control: str, treated: Sequence[str], teacher: float
) -> dict[str, dict[str, Any]]:
    gains = [gain(scores[control], scores[name]) for name in treated]
    entries = {}
    for name, difference, verdict in zip(treated, gains, verdicts(gains)):
        closed = gap_closed(estimate(scores[control]).mean, estimate(scores[name]).mean, teacher)
        entries[name] = {
            "control": control,
            "mean": difference.mean,
            "half_width": difference.half_width,
            "p_value": difference.p_value,
            "verdict": verdict,
            "gap_closed_percent": closed,
        }
    return entries


def scores(summary: Summary) -> dict[str, list[float]]:
    """Arm to the monitored metric of every seed."""
    return {name: [metrics[summary["monitor"]] for metrics in runs] for name, runs in summary["arms"].items()}


def results_table(summary: Summary, taught_by: Mapping[str, str] | None = None) -> Table:
    """The teacher and every arm: mean, every seed, gain, gap closed, verdict, steps, seconds.

    Args:
        taught_by: arm to the name of its teacher, for a column of its own.
    """
    teacher, taught_by = summary["teacher"][summary["monitor"]], taught_by or {}
    seeds = [f"seed {seed}" for seed in summary["seeds"]]
    rows: Table = [
        ["arm", "taught by", summary["monitor"], "±", *seeds, "gain", "± gain", "gap closed, %", "verdict", "steps",
         "seconds"],
        ["teacher", None, teacher, *([None] * (len(seeds) + 7))],
    ]  # fmt: skip
    for name, values in scores(summary).items():
        mean, gained = estimate(values), summary["gains"].get(name, {})
        gain_cells = [gained.get(key) for key in ("mean", "half_width", "gap_closed_percent", "verdict")]
        counts = [summary["steps"][name], round(summary["seconds"][name])]
        rows.append([name, taught_by.get(name), mean.mean, mean.half_width, *values, *gain_cells, *counts])
    return without_empty(rows)


def gain_sentence(name: str, gained: Mapping[str, Any]) -> str:
    """One line: an arm's gain over its control in points, and the verdict."""
    interval = "" if math.isnan(gained["half_width"]) else f" ± {100 * gained['half_width']:.2f}"
    closed = gained["gap_closed_percent"]
    gap = "" if math.isnan(closed) else f", {closed:.0f} % of the gap closed"
    points = f"{100 * gained['mean']:+.2f}{interval} points{gap}"
    return f"**{name}** against {gained['control']}: {points}: **{gained['verdict']}**."


def reading(summary: Summary) -> str:
    """How to read the numbers: intervals, correction for several arms, and which weights were measured."""
    count = len(summary["gains"])
    correction = f", Holm-corrected over the {count} arms compared with the control" if count > 1 else ""
    parts = [f"{READING}{correction}."]
    if summary.get("weights"):
        parts.append(weights_sentence(summary["weights"]))
    return " ".join([*parts, *protocol_sentences(summary.get("protocols"))])


def protocol_sentences(protocols: Mapping[str, str] | None) -> list[str]:
    """How each metric was measured.

    Args:
        protocols: metric to its protocol, of those that name one.
    """
    return [f"Protocol of `{name}`: {protocol}." for name, protocol in (protocols or {}).items()]


def weights_sentence(weights: Mapping[str, Any]) -> str:
    """Which weights the metrics belong to, and on which split they were chosen and measured.

    Args:
        weights: `chosen` (`best` or `last`), `monitor`, `split` of the validation data.
    """
    if weights["chosen"] == "best":
        return (
            f"Weights: the checkpoint with the best {weights['monitor']} on {weights['split']}, the split that is "
            "reported; such a score is optimistic."
        )
    return f"Weights: those after the last step, measured on {weights['split']}; no checkpoint was selected."


def data_table(summary: Summary) -> Table:
    """What every arm was trained on: labeled samples, and the pool of unlabeled ones."""
    rows: Table = [["arm", "labeled", "labeled data", "unlabeled", "unlabeled data"]]
    for name, data in summary["data"].items():
        if data:
            unlabeled = data.get("unlabeled") or {"samples": 0, "source": "none"}
            rows.append([name, data["train"]["samples"], data["train"]["source"], unlabeled["samples"],
                         unlabeled["source"]])  # fmt: skip
    return rows


def class_table(summary: Summary) -> Table:
    """Every metric of the teacher and its mean over the seeds for each arm; classes that are nowhere are left out."""
    rows: Table = [["", "teacher", *summary["arms"]]]
    for name, value in summary["teacher"].items():
        means: list[float | None] = []
        for runs in summary["arms"].values():
            values = [metrics[name] for metrics in runs if not math.isnan(metrics[name])]
            means.append(estimate(values).mean if values else None)
        rows.append([name, value, *means])
    return without_empty(rows)
