"""report.md and table.csv of task=assistant_chain."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_runner.report.statistics import estimate
from kd_runner.report.tables import comma_separated, markdown
from kd_runner.runtime.files import write_text


def write(folder: Path, summary: Mapping[str, Any], scores: Mapping[str, Sequence[float]]) -> None:
    """Teacher, stages in order and the student taught directly, with what they reach and cost."""
    seeds, stages, costs = summary["seeds"], summary["stages"], summary["costs"]
    monitor = summary["monitor"]
    head = ["net", "taught by", monitor, "±", *(f"seed {seed}" for seed in seeds), "parameters", "multiply-adds",
            "torch, ms", "steps", "seconds"]  # fmt: skip
    teachers = dict(zip(stages, ["teacher", *stages])) | {"direct": "teacher"}
    rows: list[list[Any]] = [head]
    rows.append(["teacher", None, summary["teacher"][monitor], None, *([None] * len(seeds)), *_cost(costs["teacher"])])
    for name, values in scores.items():
        mean = estimate(values)
        shown = stages[-1] + ", taught directly" if name == "direct" else name
        rows.append([shown, teachers[name], mean.mean, mean.half_width, *values, *_cost(costs[name])])
        rows[-1] += [summary["steps"][name], round(summary["seconds"][name])]
    rows[1] += [None, None]
    write_text(folder / "table.csv", comma_separated(rows))
    sections = [
        f"# {folder.name}: {' → '.join(['teacher', *stages])}",
        f"Scale **{summary['scale']}**, metric `{monitor}`, seeds {seeds}. ± is the half-width of the 95 % interval "
        "over the seeds (Student's t; paired for the gain).",
        markdown(rows),
        *_gain(summary),
        "Each stage and seed has its own folder here, with its configuration, checkpoints and curves.",
    ]
    write_text(folder / "report.md", "\n\n".join(sections) + "\n")


def _cost(cost: Mapping[str, Any]) -> list[Any]:
    return [cost["parameters"], cost["macs"], cost["torch_ms"]]


def _gain(summary: Mapping[str, Any]) -> list[str]:
    if (found := summary.get("gain_over_direct")) is None:
        return []
    interval = "" if math.isnan(found["half_width"]) else f" ± {100 * found['half_width']:.2f}"
    return [
        f"**{summary['stages'][-1]}** by way of {', '.join(summary['stages'][:-1])} against the same taught directly: "
        f"{100 * found['mean']:+.2f}{interval} points: **{found['verdict']}**."
    ]
