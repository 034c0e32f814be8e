"""The report of task=compare: report.md, table.csv, comparison.png."""

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kd_runner.pruning.report import table
from kd_runner.report.statistics import estimate, gain, gap_closed, verdict
from kd_runner.report.tables import comma_separated, markdown
from kd_runner.runtime.files import write_text


def write(cfg: DictConfig, summary: dict[str, Any], folder: Path) -> None:
    """Write the three files, and add the computed differences to the summary."""
    scores = {name: [m[cfg.monitor] for m in metrics] for name, metrics in summary["arms"].items()}
    control, *others = scores
    teacher = summary["teacher"][cfg.monitor]
    summary["gains"] = {}
    for name in others:
        difference = gain(scores[control], scores[name])
        summary["gains"][name] = {
            "mean": difference.mean,
            "half_width": difference.half_width,
            "verdict": verdict(difference),
            "gap_closed_percent": gap_closed(estimate(scores[control]).mean, estimate(scores[name]).mean, teacher),
        }
    results = _results(summary, scores, teacher, cfg.monitor)
    write_text(folder / "table.csv", comma_separated(results))
    _plot(folder / "comparison.png", scores, teacher, cfg.monitor)
    sections = [
        f"# {folder.name}: what distillation gained",
        f"Scale **{cfg.scale}**, metric `{cfg.monitor}`, seeds {summary['seeds']}. Every arm starts from the same "
        "weights, sees the same labeled samples in the same order, and takes the same number of optimizer steps. "
        "± is the half-width of the 95 % interval over the seeds (Student's t; paired for the gains).",
        markdown(results),
        *(_sentence(name, control, summary["gains"][name]) for name in others),
        "![metric of every seed](comparison.png)",
        "## Cost",
        markdown(_costs(summary["costs"])),
        *_int8(summary["costs"], cfg.monitor),
        *_pruning(summary.get("pruning")),
        "## Per class",
        markdown(_classes(summary)),
        "Settings: `config.yaml`. Each arm and seed has its own folder here, with checkpoints, curves and pictures.",
    ]
    write_text(folder / "report.md", "\n\n".join(sections) + "\n")


def _results(summary: dict[str, Any], scores: dict[str, list[float]], teacher: float, monitor: str) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["arm", monitor, "±", *(f"seed {s}" for s in summary["seeds"]), "of teacher, %", "gain", "± gain",
         "gap closed, %", "verdict", "steps", "seconds"]
    ]  # fmt: skip
    blank = [None] * len(summary["seeds"])
    rows.append(["teacher", teacher, None, *blank, 100.0, None, None, None, None, None, None])
    for name, values in scores.items():
        mean, found = estimate(values), summary["gains"].get(name)
        half = None if math.isnan(mean.half_width) else mean.half_width
        tail = (
            [found["mean"], found["half_width"], found["gap_closed_percent"], found["verdict"]] if found else [None] * 4
        )
        share = 100 * mean.mean / teacher if teacher > 0 else None
        tail += [summary["steps"][name], round(summary["seconds"][name])]
        rows.append([name, mean.mean, half, *values, share, *tail])
    return rows


def _sentence(name: str, control: str, found: dict[str, Any]) -> str:
    interval = "" if math.isnan(found["half_width"]) else f" ± {100 * found['half_width']:.2f}"
    closed = (
        "" if math.isnan(found["gap_closed_percent"]) else f", {found['gap_closed_percent']:.0f} % of the gap closed"
    )
    return f"**{name}** against {control}: {100 * found['mean']:+.2f}{interval} points{closed}: **{found['verdict']}**."


def _costs(costs: dict[str, Any]) -> list[list[Any]]:
    rows: list[list[Any]] = [["", "teacher", "student", "ratio"]]
    lines = {
        "parameters": lambda c: c["parameters"],
        "multiply-adds": lambda c: c["macs"],
        "weights, MB": lambda c: c["weights_bytes"] / 1e6,
        "ONNX, MB": lambda c: c["onnx"]["bytes"] / 1e6 if "onnx" in c else None,
        "ONNX against torch, largest error": lambda c: f"{c['onnx']['max_error']:.1e}" if "onnx" in c else None,
        "ONNX against torch, same class, %": lambda c: 100 * c["onnx"]["agreement"] if "onnx" in c else None,
        "torch, ms": lambda c: c["torch_ms"],
        "onnxruntime, ms": lambda c: c.get("onnxruntime_ms"),
    }
    for name, value in lines.items():
        teacher, student = value(costs["teacher"]), value(costs["student"])
        numbers = isinstance(teacher, int | float) and isinstance(student, int | float) and "same" not in name
        rows.append([name, teacher, student, f"{teacher / student:.1f} x" if numbers and student else None])
    shapes = ", ".join("x".join(map(str, shape)) for shape in costs["student"]["input"].values())
    rows.append([f"(one sample, {shapes}, CPU, median of 30 in turns)", None, None, None])
    return rows


def _int8(costs: dict[str, Any], monitor: str) -> list[str]:
    rows = [["student", monitor, "MB"]]
    found = costs["student"].get("int8")
    if not found:
        return []
    rows.append(["fp32 ONNX", found["metrics"]["fp32"][monitor], costs["student"]["onnx"]["bytes"] / 1e6])
    rows.append(["int8 ONNX", found["metrics"]["int8"][monitor], found["bytes"] / 1e6])
    return ["## INT8", markdown(rows)]


def _pruning(found: dict[str, Any] | None) -> list[str]:
    return [f"## Pruning of {found['module'] or 'the net'}", table(found["before"], found["after"])] if found else []


def _classes(summary: dict[str, Any]) -> list[list[Any]]:
    """Means over the seeds of everything that has a class, and of the other metrics."""
    rows: list[list[Any]] = [["", "teacher", *summary["arms"]]]
    for name, value in summary["teacher"].items():
        # A class that was nowhere to be found is nan.
        seen = [[m[name] for m in runs if not math.isnan(m[name])] for runs in summary["arms"].values()]
        rows.append([name, value, *(estimate(values).mean if values else None for values in seen)])
    return rows


def _plot(path: Path, scores: dict[str, list[float]], teacher: float, monitor: str) -> None:
    """A dot per seed and arm, lines joining a seed's arms, the teacher as a level."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.8 + 1.6 * len(scores), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axhline(teacher, color="black", linewidth=1, linestyle="--", label=f"teacher {teacher:.3f}")
    for values in zip(*scores.values()):
        axes.plot(range(len(scores)), values, color="0.75", linewidth=1, zorder=1)
    for at, seeds in enumerate(scores.values()):
        axes.scatter([at] * len(seeds), seeds, zorder=2)
        axes.annotate(f"{estimate(seeds).mean:.3f}", (at, max(seeds)), (0, 7), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(scores)), [name.replace("_", "\n") for name in scores])
    axes.margins(x=0.2, y=0.2)
    axes.set_ylabel(monitor)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)
