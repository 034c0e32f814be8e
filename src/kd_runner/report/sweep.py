"""The end of a sweep: one table, one plot, the best point as a command."""

import logging
import math
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from kd_runner.report.tables import Table, comma_separated, markdown
from kd_runner.runtime import sweep_session
from kd_runner.runtime.files import read_json, write_text
from kd_runner.runtime.resolvers import register_resolvers

log = logging.getLogger(__name__)

# A launcher's processes unpickle the callback below, and so import this, before they resolve anything.
register_resolvers()

Point = dict[str, Any]


class SweepReport(Callback):
    """Writes sweep.csv, sweep.md, sweep.png and best.sh into the sweep's folder.

    The exit code and the statuses come from the points of this start of the sweep. Points that earlier starts left in
    the folder stand in the table too, and change neither.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sweep_session.open_session(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        points = [_with_metrics(point) for point in sweep_session.close_session()]
        earlier = earlier_points(folder, {point["folder"] for point in points})
        rows = [*points, *earlier]
        for row in rows:
            row["folder"] = os.path.relpath(row["folder"], folder.resolve())
        table = _table(rows)
        write_text(folder / "sweep.csv", comma_separated(table))
        text = f"# {folder}\n\n{markdown(table)}\n" + _write_best(folder, rows)
        write_text(folder / "sweep.md", text)
        log.info("%s", text)
        unfinished = [f"{point['folder']} ({point['status']})" for point in points if point["status"] != "ended"]
        if unfinished:
            log.error("%d of %d points have not ended: %s. The same command tries them again.", len(unfinished),
                      len(points), ", ".join(unfinished))  # fmt: skip
            raise SystemExit(1)


def _with_metrics(point: Point) -> Point:
    """A point of this sweep with the metrics that lie in its folder, where its task leaves any."""
    file = Path(point["folder"]) / "metrics.json"
    result = read_json(file) if point["status"] == "ended" and file.is_file() else {}
    score = point.get("score")
    status = "stopped" if point["status"] == "started" else point["status"]
    return {**point, "status": status, "score": result.get("score", score), "metrics": _flat_metrics(result)}


def _flat_metrics(result: dict[str, Any]) -> dict[str, float]:
    metrics = result.get("metrics") or {}
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def earlier_points(folder: Path, known: set[str]) -> list[Point]:
    """Points that earlier starts of the sweep left in its folder.

    Args:
        folder: the sweep's folder.
        known: folders of the points of this start.

    Returns:
        The points: `folder`, `overrides`, `status`, `score` (None where there is none), and `metrics` of those that
        ended.

    Raises:
        ConfigError: a `metrics.json` cannot be read.
    """
    points: list[Point] = []
    for file in sorted(folder.resolve().glob("*/.hydra/overrides.yaml")):
        run = file.parent.parent
        if str(run) in known:
            continue
        overrides = [str(word) for word in OmegaConf.load(file)]
        point: Point = {"folder": str(run), "overrides": overrides, "status": "earlier: not ended", "score": None}
        if (run / "metrics.json").is_file():
            result = read_json(run / "metrics.json")
            point |= {"status": "ended", "score": result.get("score"), "metrics": _flat_metrics(result)}
        points.append(point)
    return points


def _write_best(folder: Path, rows: list[Point]) -> str:
    """Write the plot and best.sh; what the report says of them. Scores of different experiments are not compared."""
    ended = [row for row in rows if row["status"] == "ended" and not math.isnan(_rank(row)) and _rank(row) > -math.inf]
    if not ended:
        return ""
    text = ""
    if _plot(folder / "sweep.png", ended):
        text += "\n![the metric over what was varied](sweep.png)\n"
    if len({_settings(row).get("experiment") for row in rows}) > 1:
        (folder / "best.sh").unlink(missing_ok=True)
        return text + "\nThe points belong to different experiments: their scores are not compared.\n"
    best = max(ended, key=_rank)
    write_text(folder / "best.sh", _command(best))
    (folder / "best.sh").chmod(0o755)
    return text + f"\nBest: `{best['folder']}`; `bash {folder / 'best.sh'}` runs it again.\n"


def varied_keys(rows: list[Point]) -> list[str]:
    """Keys of the overrides that differ between points.

    Args:
        rows: points of the sweep.

    Returns:
        The keys in the order of the overrides; all of them where none differs.
    """
    values: dict[str, set[str]] = {}
    for row in rows:
        for key, value in _settings(row).items():
            values.setdefault(key, set()).add(value)
    return [key for key, used in values.items() if len(used) > 1] or list(values)


def _rank(row: Point) -> float:
    """The score; points without one, or with nan, come last."""
    return -math.inf if row["score"] is None or math.isnan(row["score"]) else float(row["score"])


def _settings(row: Point) -> dict[str, str]:
    return dict(word.lstrip("+").split("=", 1) for word in row["overrides"] if "=" in word)


def _table(rows: list[Point]) -> Table:
    keys = varied_keys(rows)
    metrics = dict.fromkeys(name for row in rows for name in row.get("metrics", {}) if "/" not in name)
    table: Table = [[*keys, *metrics, "status", "folder"]]
    for row in sorted(rows, key=_rank, reverse=True):
        settings, values = _settings(row), row.get("metrics", {})
        status = row["status"] + (f": {row['error']}" if row.get("error") else "")
        table.append([*(settings.get(k) for k in keys), *(values.get(m) for m in metrics), status, row["folder"]])
    return table


def _command(best: Point) -> str:
    """A script that runs a point again, with the user's own configuration folder."""
    flags = []
    for previous, word in zip(sys.argv, sys.argv[1:]):
        if word.startswith("--config-dir") or previous == "--config-dir":
            flags.append(word)
    words = " ".join(shlex.quote(word) for word in [*flags, *best["overrides"]])
    return (
        f'#!/usr/bin/env bash\n# The best point: {best["score"]:.4f}\nexec {sys.executable} -m kd_runner {words} "$@"\n'
    )


def _plot(path: Path, rows: list[Point]) -> bool:
    """The metric over the first numeric key, a line per combination of the others. False where no key is numeric."""
    keys = varied_keys(rows)
    numeric = [key for key in keys if all(_number(_settings(row).get(key)) is not None for row in rows)]
    if not numeric:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        settings = _settings(row)
        label = ", ".join(f"{key}={settings.get(key)}" for key in keys if key != numeric[0])
        lines.setdefault(label, []).append((_number(settings[numeric[0]]) or 0.0, row["score"]))
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for label, line in sorted(lines.items()):
        axes.plot(*zip(*sorted(line)), marker="o", label=label or None)
    axes.set_xlabel(numeric[0])
    axes.set_ylabel("metric")
    axes.spines[["top", "right"]].set_visible(False)
    if any(lines):
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    return True


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
