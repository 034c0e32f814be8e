"""Figures of one section of gathered runs, as SVG text that a page can hold."""

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from kd_runner.report.curves import Curve, curve
from kd_runner.report.grouped import Row, Section, classes

# The palette of Okabe and Ito, safe for color-blind readers; the teacher is black.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
MAX_ROWS = len(_COLORS)

Colors = dict[str, str]


def chosen(section: Section) -> list[Row]:
    """Rows that the figures show: the teacher, controls, and the best of the others, `MAX_ROWS` in all.

    Args:
        section: runs that may be compared.

    Returns:
        The rows, in the order of the section.
    """
    first = [row for row in section.rows if row.is_teacher or any(other.control is row for other in section.rows)][
        :MAX_ROWS
    ]
    others = sorted((row for row in section.rows if row not in first), key=lambda row: -_rank(row))
    kept = [*first, *others[: MAX_ROWS - len(first)]]
    return [row for row in section.rows if row in kept]


def figures(section: Section) -> dict[str, str]:
    """Caption to SVG; only those for which something was measured.

    Args:
        section: runs that may be compared.

    Returns:
        Caption to the text of an `<svg>` element. Parameters are in millions, latencies in milliseconds for one sample.
    """
    rows = chosen(section)
    colors: Colors = {row.label: _COLORS[i] for i, row in enumerate(_students(rows))}
    colors |= {row.label: "black" for row in rows if row.is_teacher}
    left_out = len(section.rows) - len(rows)
    which = f" (the best {len(rows)} of {len(section.rows)} rows)" if left_out else ""
    drawn = {
        f"{section.monitor}: every seed, mean and 95 % interval{which}": _scores(section, rows, colors),
        f"{section.monitor} on the validation set while training: mean, and every seed": _curves(section, rows, colors),
        f"{section.monitor} against size and speed": _costs(section, rows, colors),
    }
    for kind, labels in classes(section.rows).items():
        drawn[f"{kind} of every class, mean over the seeds"] = _per_class(kind, labels, rows, colors)
    return {caption: svg for caption, svg in drawn.items() if svg}


def _students(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not row.is_teacher]


def _rank(row: Row) -> float:
    return -math.inf if math.isnan(row.mean.mean) else row.mean.mean


def _draw(width: float, height: float, draw: Callable[[Figure], object]) -> str:
    settings: Any = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "svg.hashsalt": "kd_runner"}
    with rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text[text.index("<svg") :], count=1)


def _legend(figure: Figure, rows: Sequence[Row], colors: Colors) -> None:
    """A legend below the axes, one line per row of the section: labels are long."""
    handles = [figure.axes[0].plot([], [], marker="o", color=colors[row.label], linewidth=1.5)[0] for row in rows]
    figure.legend(handles, [row.label for row in rows], loc="outside lower left", frameon=False, ncols=1)


def _scores(section: Section, rows: Sequence[Row], colors: Colors) -> str:
    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, row in enumerate(reversed(rows)):
            mean, color = row.mean, colors[row.label]
            axes.scatter([run.score for run in row.runs], [i] * len(row.runs), s=22, color=color, alpha=0.45)
            half = 0 if math.isnan(mean.half_width) else mean.half_width
            axes.errorbar(mean.mean, i, xerr=half, fmt="D", markersize=6, color=color, capsize=4)
            axes.annotate(f"{mean.mean:.3f}", (mean.mean, i), (0, 8), textcoords="offset points", ha="center")
        if section.teacher is not None:
            axes.axvline(section.teacher.mean.mean, color="black", linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(rows)), [_wrapped(row.label) for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.3)
        axes.set_xlabel(section.monitor)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)

    return _draw(9, 1.0 + 0.5 * len(rows), draw)


def _curves(section: Section, rows: Sequence[Row], colors: Colors) -> str:
    curves: dict[str, list[Curve]] = {}
    for row in _students(rows):
        of_seeds = [curve(run.folder, section.monitor) for run in row.runs]
        curves[row.label] = [points for points in of_seeds if points]
    shown = [row for row in rows if curves.get(row.label)]
    if not shown:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row in shown:
            seeds, color = curves[row.label], colors[row.label]
            if len(seeds) > 1:
                for points in seeds:
                    axes.plot(*zip(*points), color=color, linewidth=0.7, alpha=0.35)
            steps = sorted(set.intersection(*({step for step, _ in points} for points in seeds)))
            means = [sum(dict(points)[step] for points in seeds) / len(seeds) for step in steps]
            axes.plot(steps, means, color=color, linewidth=2, marker="o", markersize=3)
        if section.teacher is not None:
            axes.axhline(section.teacher.mean.mean, color="black", linewidth=0.8, linestyle="--")
        axes.set_xlabel("optimizer steps")
        axes.set_ylabel(section.monitor)
        axes.grid(color="0.92")
        _legend(figure, shown, colors)

    return _draw(9, 3.8 + 0.2 * len(shown), draw)


def _costs(section: Section, rows: Sequence[Row], colors: Colors) -> str:
    kinds = {
        "parameters": "parameters, M",
        "torch_ms": "torch, ms a sample",
        "onnxruntime_ms": "onnxruntime, ms a sample",
    }
    known = [kind for kind in kinds if sum(not math.isnan(row.cost(kind)) for row in rows) > 1]
    if not known:
        return ""
    shown = [row for row in rows if any(not math.isnan(row.cost(kind)) for kind in known)]

    def draw(figure: Figure) -> None:
        plots: list[Axes] = list(figure.subplots(1, len(known), sharey=True, squeeze=False)[0])
        for axes, kind in zip(plots, known):
            for row in shown:
                cost = row.cost(kind) / (1e6 if kind == "parameters" else 1)
                axes.scatter(cost, row.mean.mean, s=45, color=colors[row.label], marker="*" if row.is_teacher else "o")
            largest = max((row.cost(kind) for row in shown if not math.isnan(row.cost(kind))), default=1.0)
            # From zero, with room for the marker of the costliest net.
            axes.set_xlim(0, 1.08 * largest / (1e6 if kind == "parameters" else 1))
            axes.margins(y=0.12)
            axes.set_xlabel(kinds[kind])
            axes.grid(color="0.92")
            axes.set_axisbelow(True)
        plots[0].set_ylabel(section.monitor)
        _legend(figure, shown, colors)

    return _draw(9, 3.2 + 0.2 * len(shown), draw)


def _per_class(kind: str, labels: Sequence[str], rows: Sequence[Row], colors: Colors) -> str:
    width = 0.84 / len(rows)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, row in enumerate(rows):
            positions = [j + (i - (len(rows) - 1) / 2) * width for j in range(len(labels))]
            values = [row.metric(f"{kind}/{label}") for label in labels]
            axes.bar(positions, values, width * 0.92, color=colors[row.label])
        short = max(map(len, labels)) * len(labels) < 60
        # A turned label ends at its tick: centered ones reach over the left border.
        axes.set_xticks(range(len(labels)), labels, rotation=0 if short else 40, ha="center" if short else "right",
                        rotation_mode="default" if short else "anchor")  # fmt: skip
        axes.set_ylabel(kind)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        _legend(figure, rows, colors)

    return _draw(9, 3.2 + 0.2 * len(rows), draw)


def _wrapped(label: str) -> str:
    """A comma ends a line where one line would be too long."""
    lines = [""]
    for part in label.split(", "):
        if lines[-1] and len(lines[-1]) + len(part) > 40:
            lines.append("")
        lines[-1] += f", {part}" if lines[-1] else part
    return "\n".join(lines)
