"""The report of task=compare: report.md, table.csv, comparison.png."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_runner.pruning import report as pruning_report
from kd_runner.report.comparison import (
    Summary,
    class_table,
    data_table,
    gain_sentences,
    reading,
    results_table,
    scores,
    untrained,
)
from kd_runner.report.statistics import estimate
from kd_runner.report.tables import Table, comma_separated, markdown, without_empty
from kd_runner.runtime.files import write_text


def write(folder: Path, summary: Summary) -> None:
    """Write the three files.

    Args:
        folder: where to write; files of the same names are replaced.
        summary: as `comparison.summarize` makes it, with `costs` of teacher and student, and `pruning` or None.
    """
    monitor = summary["monitor"]
    table = results_table(summary)
    write_text(folder / "table.csv", comma_separated(table))
    _plot(folder / "comparison.png", scores(summary), summary["teacher"][monitor], monitor)
    sections = [
        f"# {folder.name}: what distillation gained",
        f"Scale **{summary['scale']}**, metric `{monitor}`, seeds {summary['seeds']}. Every arm starts from the same "
        f"weights, sees the same labeled samples in the same order, and takes the same number of optimizer steps"
        f"{_unless(summary)}. {reading(summary)}",
        markdown(table),
        *untrained(summary),
        *(line for name, gained in summary["gains"].items() for line in gain_sentences(name, gained)),
        *_weak_teacher(summary),
        "![metric of every seed](comparison.png)",
        "## Data",
        markdown(data_table(summary)),
        "## Cost",
        markdown(_costs(summary["costs"])),
        _cost_note(summary["costs"]),
        *_int8(summary["costs"], monitor),
        *_pruning(summary.get("pruning")),
        "## Per class",
        markdown(class_table(summary)),
        "Settings: `config.yaml`. Each arm and seed has its own folder here, with checkpoints, curves and pictures. "
        "All of it on one page: `comparison.html`.",
    ]
    write_text(folder / "report.md", "\n\n".join(sections) + "\n")


def _unless(summary: Summary) -> str:
    """The arms that take another number of steps."""
    longer = [f"`{name}` trains for as long as `{other}`" for name, other in summary.get("seconds_of", {}).items()]
    return f", except that {', '.join(longer)}" if longer else ""


def _weak_teacher(summary: Summary) -> list[str]:
    """A warning where the teacher is no better than the student without it."""
    control = next(iter(summary["arms"]))
    teacher, student = summary["teacher"][summary["monitor"]], estimate(scores(summary)[control]).mean
    if teacher > student:
        return []
    return [f"The teacher ({teacher:.4f}) is no better than {control} ({student:.4f}): there is no gap to close."]


def _costs(costs: Mapping[str, Any]) -> Table:
    teacher, student = (_cost_values(costs[role]) for role in ("teacher", "student"))
    rows: Table = [["", "teacher", "student", "teacher / student"]]
    for name in teacher:
        ratio = None
        if isinstance(teacher[name], int | float) and student[name] and "same class" not in name:
            ratio = f"{teacher[name] / student[name]:.1f} x"
        rows.append([name, teacher[name], student[name], ratio])
    return without_empty(rows)


def _cost_values(cost: Mapping[str, Any]) -> dict[str, Any]:
    onnx = cost.get("onnx", {})
    error, agreement = onnx.get("max_error"), onnx.get("agreement")
    return {
        "parameters": cost["parameters"],
        "multiply-adds": cost["macs"],
        "weights, MB": cost["weights_bytes"] / 1e6,
        "ONNX, MB": onnx["bytes"] / 1e6 if onnx else None,
        "ONNX against torch, largest error": None if error is None else f"{error:.1e}",
        "ONNX against torch, same class, %": None if agreement is None else 100 * agreement,
        "torch, ms": cost["torch_ms"],
        "onnxruntime, ms": cost.get("onnxruntime_ms"),
    }


def _cost_note(costs: Mapping[str, Any]) -> str:
    shapes = ", ".join("x".join(map(str, shape)) for shape in costs["student"]["input"].values())
    return f"Cost of one sample ({shapes}) on the CPU; times are the median of 30 calls, both nets in turns."


def _int8(costs: Mapping[str, Any], monitor: str) -> list[str]:
    int8 = costs["student"].get("int8")
    if not int8:
        return []
    rows: Table = [["student", monitor, "MB"]]
    rows.append(["fp32 ONNX", int8["metrics"]["fp32"][monitor], costs["student"]["onnx"]["bytes"] / 1e6])
    rows.append(["int8 ONNX", int8["metrics"]["int8"][monitor], int8["bytes"] / 1e6])
    return ["## INT8", markdown(rows)]


def _pruning(pruning: Mapping[str, Any] | None) -> list[str]:
    if not pruning:
        return []
    table = pruning_report.table(pruning["before"], pruning["after"])
    return [f"## Pruning of {pruning['module'] or 'the net'}", table]


def _plot(path: Path, scores: Mapping[str, list[float]], teacher: float, monitor: str) -> None:
    """A dot per seed and arm, lines that join a seed's arms, the teacher as a dashed level."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.8 + 1.6 * len(scores), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axhline(teacher, color="black", linewidth=1, linestyle="--", label=f"teacher {teacher:.3f}")
    for of_seed in zip(*scores.values()):
        axes.plot(range(len(scores)), of_seed, color="0.75", linewidth=1, zorder=1)
    for i, values in enumerate(scores.values()):
        axes.scatter([i] * len(values), values, zorder=2)
        label = f"{estimate(values).mean:.3f}"
        axes.annotate(label, (i, max(values)), (0, 7), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(scores)), [name.replace("_", "\n") for name in scores])
    axes.margins(x=0.2, y=0.2)
    axes.set_ylabel(monitor)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)
