"""The report of task=league: report.md, table.csv, league.png."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_runner.report.comparison import Summary, reading, scores
from kd_runner.report.statistics import estimate, holm
from kd_runner.report.tables import Table, comma_separated, markdown, without_empty
from kd_runner.report.training_cost import CLOCKS, mean_cost
from kd_runner.runtime.files import write_text


def write(folder: Path, summary: Summary) -> None:
    """Write the three files.

    Args:
        folder: where to write; files of the same names are replaced.
        summary: as `comparison.summarize` makes it, with `control`, and `methods`: name to `losses` (name to weight),
            `settings`, `failed` (an error, or None) and `gradient_share` (`start`, `end`).
    """
    table = league_table(summary)
    write_text(folder / "table.csv", comma_separated(table))
    control, monitor = summary["control"], summary["monitor"]
    _plot(folder / "league.png", summary)
    sections = [
        f"# {folder.name}: which method helps",
        f"Scale **{summary['scale']}**, metric `{monitor}`, seeds {summary['seeds']}, {summary['steps'][control]:,} "
        "steps. Every method has its default weights, starts from the same initial weights as the student without "
        f"distillation (`{control}`), sees the same labeled samples in the same order, and takes as many steps. "
        f"{reading(summary)}",
        markdown(table),
        *_verdicts(summary),
        *_failed(summary),
        _columns(summary),
        "![gain of each method](league.png)",
        "## Every seed",
        markdown(_seeds(summary)),
        "Settings: `config.yaml`. Each method and seed has its folder here. All of it on one page: `comparison.html`.",
    ]
    write_text(folder / "report.md", "\n\n".join(sections) + "\n")


def ranking(summary: Summary) -> list[str]:
    """The methods that ended, the largest gain first.

    Args:
        summary: the comparison, as `comparison.summarize` makes it.

    Returns:
        Names of the methods, without the control and those that failed.
    """
    gains: Mapping[str, Any] = summary["gains"]
    return sorted(gains, key=lambda name: -gains[name]["mean"])


def league_table(summary: Summary) -> Table:
    """The teacher, then control and methods, the largest gain first; methods that failed at the end.

    Args:
        summary: as for `write`.

    Returns:
        The table, the head first: metric, gain and their half-widths in units of the metric, `gap closed` in percent,
        time of an optimizer step in milliseconds, gradient shares in [0, 1]. Columns that hold nothing are left out.
    """
    values, control = scores(summary), summary["control"]
    adjusted = dict(zip(summary["gains"], holm([gained["p_value"] for gained in summary["gains"].values()])))
    rows: Table = [
        ["method", "losses", summary["monitor"], "±", "gain", "± gain", "p (Holm)", "verdict", "gap closed, %",
         "ms/step", "x control", "gradient share, start", "end"],
        ["teacher", None, summary["teacher"][summary["monitor"]], *[None] * 10],
    ]  # fmt: skip
    ranked = ranking(summary)
    better = [name for name in ranked if summary["gains"][name]["mean"] > 0]
    for name in [*better, control, *(name for name in ranked if name not in better)]:
        mean, gained, method = estimate(values[name]), summary["gains"].get(name, {}), summary["methods"].get(name, {})
        fractions = method.get("gradient_share") or {}
        own, base = _milliseconds(summary, name), _milliseconds(summary, control)
        rows.append([
            name, _losses(method), mean.mean, mean.half_width, gained.get("mean"), gained.get("half_width"),
            adjusted.get(name), gained.get("verdict"), gained.get("gap_closed_percent"), own,
            f"{own / base:.2f}" if own and base else None, fractions.get("start"), fractions.get("end"),
        ])  # fmt: skip
    for name, method in summary["methods"].items():
        if method["failed"]:
            rows.append([name, _losses(method), *[None] * 5, "failed", *[None] * 5])
    return without_empty(rows)


def _losses(method: Mapping[str, Any]) -> str | None:
    """Losses with their weights, and what else the method sets."""
    if not method:
        return None
    parts = [f"{weight:g} {name}" for name, weight in method["losses"].items()]
    return ", ".join([" + ".join(parts), *(f"{key}={value}" for key, value in method["settings"].items())])


def _milliseconds(summary: Summary, name: str) -> float | None:
    cost = mean_cost(summary, name)
    return None if cost is None or not cost["steps"] else 1000 * cost["seconds"] / cost["steps"]


def _verdicts(summary: Summary) -> list[str]:
    """Which methods are better and worse than the control, in words."""
    gains = summary["gains"]
    words = {"gain": "Better than", "loss": "Worse than"}
    lines = []
    for verdict, word in words.items():
        names = [name for name in ranking(summary) if gains[name]["verdict"] == verdict]
        lines.append(f"{word} the control: {', '.join(names) if names else 'none'}.")
    return [" ".join(lines)]


def _failed(summary: Summary) -> list[str]:
    return [f"{name} failed: {method['failed']}" for name, method in summary["methods"].items() if method["failed"]]


def _columns(summary: Summary) -> str:
    cost = mean_cost(summary, summary["control"])
    clock = CLOCKS[cost["clock"]] if cost is not None else "time"
    return (
        f"`ms/step` is {clock} of an optimizer step, the teacher's forward pass included; `x control` that over the "
        "control's. `gradient share` is the norm of the gradient of the weighted distillation losses at the student, "
        "over that plus the norm of the task losses', on one batch of the first seed, before and after training. "
        "`p (Holm)` belongs to the two-sided paired t-test, corrected for the number of methods."
    )


def _seeds(summary: Summary) -> Table:
    rows: Table = [["method", *(f"seed {seed}" for seed in summary["seeds"])]]
    return [*rows, *([name, *values] for name, values in scores(summary).items())]


def _plot(path: Path, summary: Summary) -> None:
    """Gain and interval of every method in points, the largest on top; every seed as a dot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = ranking(summary)[::-1]
    values, control = scores(summary), scores(summary)[summary["control"]]
    figure = Figure(figsize=(6.5, 1.2 + 0.28 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axvline(0, color="black", linewidth=1)
    for row, name in enumerate(names):
        gained = summary["gains"][name]
        color = {"gain": "tab:green", "loss": "tab:red"}.get(gained["verdict"], "0.5")
        differences = [100 * (after - before) for after, before in zip(values[name], control)]
        axes.scatter(differences, [row] * len(differences), color=color, alpha=0.35, s=14)
        half_width = gained["half_width"]
        interval = 0.0 if half_width != half_width else 100 * half_width
        axes.errorbar(100 * gained["mean"], row, xerr=interval, fmt="o", color=color, capsize=3)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(f"gain over {summary['control']}, points of {summary['monitor']}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
