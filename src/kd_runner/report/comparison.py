"""The summary of several arms over several seeds: what task=compare and task=assistant_chain report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kd_runner.report.statistics import estimate, gain, gap_closed, harder, verdicts
from kd_runner.report.tables import Table, without_empty
from kd_runner.report.training_cost import COST_COLUMNS, cost_cells, cost_sentences
from kd_runner.report.training_level import untrained_sentence

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
    controls: Sequence[str],
    treated: Sequence[str],
    nulls: Sequence[str] = (),
) -> Summary:
    """Scores, gains and verdicts, as written to `metrics.json`.

    Args:
        monitor: name of the metric that is compared.
        seeds: seeds of the runs.
        teacher: the teacher's metrics.
        results: arm to the contents of its runs' `metrics.json`, in the order of `seeds`.
        score_arm: arm whose mean is the score of the whole.
        controls: arms that the treated ones are compared with, each of them with each; empty for no gains.
        treated: arms that get a gain and a verdict, Holm-corrected over all of them for each control.
        nulls: arms with a null teacher, which must not gain: each has a verdict without correction, and its headline is
            the gain over the easier control.

    Returns:
        `scale`, `monitor`, `seeds`, the `teacher`'s metrics, `gains` and `score` (mean of the monitored metric of
        `score_arm`). By arm: `arms` (metrics of each seed), `training_cost` of each seed, mean `steps` (optimizer
        steps) and `seconds` (wall time), `data`. Of the first run: `weights`, `protocols` and `constant_level`.

    Raises:
        ValueError: the arms differ in their number of runs, or there are nulls without controls.
        KeyError: the teacher or a run lacks the metric `monitor`.
    """
    scores = {name: [run["metrics"][monitor] for run in runs] for name, runs in results.items()}
    gains = _gains(scores, controls, treated, teacher[monitor]) if controls else {}
    for name in nulls:
        (entry,) = _gains(scores, controls, [name], teacher[monitor]).values()
        easiest = max(entry["against"].values(), key=lambda one: (one["verdict"] == "gain", one["mean"]))
        gains[name] = {**entry, **easiest, "is_null": True}
    first = next(iter(results.values()))[0]
    return {
        "scale": first["scale"],
        "monitor": monitor,
        "seeds": list(seeds),
        "teacher": dict(teacher),
        "arms": {name: [run["metrics"] for run in runs] for name, runs in results.items()},
        "steps": {name: round(sum(run["steps"] for run in runs) / len(runs)) for name, runs in results.items()},
        "training_cost": {name: [run.get("training_cost") for run in runs] for name, runs in results.items()},
        "seconds": {name: sum(run["seconds"] for run in runs) / len(runs) for name, runs in results.items()},
        "weights": first.get("weights"),
        "protocols": first.get("protocols"),
        "constant_level": first.get("constant_level"),
        "data": {name: runs[0].get("data") for name, runs in results.items()},
        "gains": gains,
        "score": sum(scores[score_arm]) / len(scores[score_arm]),
    }


def _gains(
    scores: Mapping[str, Sequence[float]], controls: Sequence[str], treated: Sequence[str], teacher: float
) -> dict[str, dict[str, Any]]:
    """Arm to its gain over the harder control; `against` holds the gains over all of them."""
    differences = {control: [gain(scores[control], scores[name]) for name in treated] for control in controls}
    words = {control: verdicts(gains) for control, gains in differences.items()}
    entries = {}
    for i, name in enumerate(treated):
        against = {}
        for control in controls:
            one = differences[control][i]
            against[control] = {
                "control": control,
                "mean": one.mean,
                "half_width": one.half_width,
                "p_value": one.p_value,
                "verdict": words[control][i],
                "gap_closed_percent": gap_closed(estimate(scores[control]).mean, estimate(scores[name]).mean, teacher),
            }
        hardest = harder([differences[control][i] for control in controls], [words[c][i] for c in controls])
        entries[name] = {**against[controls[hardest]], "against": against}
    return entries


def scores(summary: Summary) -> dict[str, list[float]]:
    """Arm to the monitored metric of every seed.

    Args:
        summary: the comparison, as `summarize` makes it.

    Returns:
        Arm to its scores, in the order of the seeds and in units of the metric.
    """
    return {name: [metrics[summary["monitor"]] for metrics in runs] for name, runs in summary["arms"].items()}


def results_table(summary: Summary, taught_by: Mapping[str, str] | None = None) -> Table:
    """The teacher and every arm: mean, every seed, gain, gap closed, verdict, steps, seconds.

    Args:
        summary: the comparison, as `summarize` makes it.
        taught_by: arm to the name of its teacher, for a column of its own.

    Returns:
        The table, the head first: scores and gains in units of the metric, `gap closed` in percent. Columns that hold
        nothing are left out.
    """
    teacher, taught_by = summary["teacher"][summary["monitor"]], taught_by or {}
    seeds = [f"seed {seed}" for seed in summary["seeds"]]
    rows: Table = [
        ["arm", "taught by", summary["monitor"], "±", *seeds, "gain", "± gain", "against", "gap closed, %", "verdict",
         "steps", *COST_COLUMNS, "seconds"],
        ["teacher", None, teacher, *([None] * (len(seeds) + 8 + len(COST_COLUMNS)))],
    ]  # fmt: skip
    for name, values in scores(summary).items():
        mean, gained = estimate(values), summary["gains"].get(name, {})
        keys = ("mean", "half_width", "control", "gap_closed_percent", "verdict")
        gain_cells = [gained.get(key) for key in keys]
        costs = [summary["steps"][name], *cost_cells(summary, name), round(summary["seconds"][name])]
        rows.append([name, taught_by.get(name), mean.mean, mean.half_width, *values, *gain_cells, *costs])
    return without_empty(rows)


def gain_sentences(name: str, gained: Mapping[str, Any]) -> list[str]:
    """One line per control: an arm's gain in points, and the verdict; the harder control first.

    Args:
        name: the arm.
        gained: entry of `gains` in the summary.

    Returns:
        The lines, as markdown; for an arm with a null teacher a single one, which says what its verdict means.
    """
    if gained.get("is_null"):
        return [_null_sentence(name, gained)]
    others = [entry for control, entry in gained["against"].items() if control != gained["control"]]
    return [_sentence(name, gained, ", the harder control" if others else ""), *(_sentence(name, o) for o in others)]


def _null_sentence(name: str, gained: Mapping[str, Any]) -> str:
    """What the arm says whose teacher knows nothing."""
    verdict = gained["verdict"]
    meaning = ": the same losses gain nothing from a teacher that knows nothing."
    if verdict == "gain":
        meaning = ". **The gain is not the teacher's**: a teacher that knows nothing brings one as well."
    elif "no verdict" in verdict:
        meaning = "; its teacher knows nothing, so a gain here would not be the teacher's."
    return _sentence(name, gained, " (a null teacher)").removesuffix(".") + meaning


def _sentence(name: str, gained: Mapping[str, Any], remark: str = "") -> str:
    interval = "" if math.isnan(gained["half_width"]) else f" ± {100 * gained['half_width']:.2f}"
    closed = gained["gap_closed_percent"]
    gap = "" if math.isnan(closed) else f", {closed:.0f} % of the gap closed"
    points = f"{100 * gained['mean']:+.2f}{interval} points{gap}"
    return f"**{name}** against {gained['control']}{remark}: {points}: **{gained['verdict']}**."


def untrained(summary: Summary) -> list[str]:
    """A line that names the arms that are no better than a constant prediction, on the mean over the seeds, if any.

    Args:
        summary: the comparison, as `summarize` makes it.

    Returns:
        The line, as markdown; empty where every arm is better, or the level is not known.
    """
    means = {name: estimate(values).mean for name, values in scores(summary).items()}
    sentence = untrained_sentence(summary["monitor"], means, summary.get("constant_level"))
    return [] if sentence is None else [sentence]


def reading(summary: Summary) -> str:
    """How to read the numbers: intervals, correction for several arms, and which weights were measured.

    Args:
        summary: the comparison, as `summarize` makes it.

    Returns:
        One paragraph of markdown.
    """
    count = sum(not gained.get("is_null") for gained in summary["gains"].values())
    correction = f", Holm-corrected over the {count} arms compared with the control" if count > 1 else ""
    parts = [f"{READING}{correction}."]
    if any(len(gained["against"]) > 1 for gained in summary["gains"].values()):
        parts.append("The table shows the gain over the harder control; it is a gain only if it is one over each.")
    parts += cost_sentences(summary)
    if summary.get("weights"):
        parts.append(weights_sentence(summary["weights"]))
    return " ".join([*parts, *protocol_sentences(summary.get("protocols"))])


def protocol_sentences(protocols: Mapping[str, str] | None) -> list[str]:
    """How each metric was measured.

    Args:
        protocols: metric to its protocol, of those that name one.

    Returns:
        One sentence per metric; empty without protocols.
    """
    return [f"Protocol of `{name}`: {protocol}." for name, protocol in (protocols or {}).items()]


def weights_sentence(weights: Mapping[str, Any]) -> str:
    """Which weights the metrics belong to, and on which split they were chosen and measured.

    Args:
        weights: `chosen` (`best` or `last`), `monitor`, `split` of the validation data.

    Returns:
        The sentence.
    """
    if weights["chosen"] == "best":
        return (
            f"Weights: the checkpoint with the best {weights['monitor']} on {weights['split']}, the split that is "
            "reported; such a score is optimistic."
        )
    return f"Weights: those after the last step, measured on {weights['split']}; no checkpoint was selected."


def data_table(summary: Summary) -> Table:
    """What every arm was trained on: labeled samples, and the pool of unlabeled ones.

    Args:
        summary: the comparison, as `summarize` makes it.

    Returns:
        The table, the head first; arms whose data are not recorded are left out.
    """
    rows: Table = [["arm", "labeled", "labeled data", "unlabeled", "unlabeled data"]]
    for name, data in summary["data"].items():
        if data:
            unlabeled = data.get("unlabeled") or {"samples": 0, "source": "none"}
            rows.append([name, data["train"]["samples"], data["train"]["source"], unlabeled["samples"],
                         unlabeled["source"]])  # fmt: skip
    return rows


def class_table(summary: Summary) -> Table:
    """Every metric of the teacher and its mean over the seeds for each arm; classes that are nowhere are left out.

    Args:
        summary: the comparison, as `summarize` makes it.

    Returns:
        The table, the head first: one line per metric, in its own units; seeds where it is nan do not count.
    """
    rows: Table = [["", "teacher", *summary["arms"]]]
    for name, value in summary["teacher"].items():
        means: list[float | None] = []
        for runs in summary["arms"].values():
            values = [metrics[name] for metrics in runs if not math.isnan(metrics[name])]
            means.append(estimate(values).mean if values else None)
        rows.append([name, value, *means])
    return without_empty(rows)
