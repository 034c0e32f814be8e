"""The end of a sweep: one table, one plot, the best point as a command."""

import logging
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from kd_runner.runtime.files import read_json, write_text
from kd_runner.runtime.run_folder import register_resolvers

log = logging.getLogger(__name__)

# A launcher's processes unpickle the callback below, and so import this, before they resolve anything.
register_resolvers()


class SweepReport(Callback):
    """Writes sweep.csv, sweep.md, sweep.png and best.sh into the sweep's folder, from every point that lies there."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        rows = points(folder)
        ended = [row for row in rows if row["status"] == "ended"]
        table = _table(rows)
        from kd_runner.report.tables import comma_separated, markdown

        write_text(folder / "sweep.csv", comma_separated(table))
        text = f"# {folder}\n\n{markdown(table)}\n"
        if ended:
            best = max(ended, key=_rank)
            write_text(folder / "best.sh", _command(best))
            (folder / "best.sh").chmod(0o755)
            if _plot(folder / "sweep.png", ended):
                text += "\n![the metric over what was varied](sweep.png)\n"
            text += f"\nBest: `{best['folder']}`; `bash {folder / 'best.sh'}` runs it again.\n"
        write_text(folder / "sweep.md", text)
        log.info("%s", text)
        failed = [row["folder"] for row in rows if row["status"] != "ended"]
        if failed:
            log.error("%d of %d points failed: %s. The same command tries them again.", len(failed), len(rows), failed)
            raise SystemExit(1)


def points(folder: Path) -> list[dict[str, Any]]:
    """One entry a point: folder, overrides, status, score, metrics, message of a failure."""
    found = []
    for place in sorted(p.parent.parent for p in folder.glob("*/.hydra/overrides.yaml")):
        overrides = [str(word) for word in OmegaConf.load(place / ".hydra" / "overrides.yaml")]
        point: dict[str, Any] = {"folder": place.name, "overrides": overrides, "status": "stopped", "score": None}
        if (place / "metrics.json").is_file():
            result = read_json(place / "metrics.json")
            point |= {"status": "ended", "score": result["score"], "metrics": result.get("metrics", {})}
        elif (place / "failed.json").is_file():
            point |= {"status": "failed", "error": read_json(place / "failed.json")["error"]}
        found.append(point)
    return found


def varied(rows: list[dict[str, Any]]) -> list[str]:
    """Keys of the overrides that differ between points."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for key, value in _settings(row).items():
            values.setdefault(key, set()).add(value)
    return [key for key, seen in values.items() if len(seen) > 1] or list(values)


def _rank(row: dict[str, Any]) -> float:
    """The score; points without one, or that gave nan, come last."""
    return -math.inf if row["score"] is None or math.isnan(row["score"]) else row["score"]


def _settings(row: dict[str, Any]) -> dict[str, str]:
    return dict(word.lstrip("+").split("=", 1) for word in row["overrides"] if "=" in word)


def _table(rows: list[dict[str, Any]]) -> list[list[Any]]:
    keys = varied(rows)
    metrics = dict.fromkeys(name for row in rows for name in row.get("metrics", {}) if "/" not in name)
    table: list[list[Any]] = [[*keys, *metrics, "status", "folder"]]
    for row in sorted(rows, key=_rank, reverse=True):
        settings, found = _settings(row), row.get("metrics", {})
        status = row["status"] + (f": {row['error']}" if "error" in row else "")
        table.append([*(settings.get(k) for k in keys), *(found.get(m) for m in metrics), status, row["folder"]])
    return table


def _command(best: dict[str, Any]) -> str:
    own = [
        w for at, w in enumerate(sys.argv[1:], 1) if w.startswith("--config-dir") or sys.argv[at - 1] == "--config-dir"
    ]
    words = " ".join(shlex.quote(word) for word in [*own, *best["overrides"]])
    return (
        f'#!/usr/bin/env bash\n# The best point: {best["score"]:.4f}\nexec {sys.executable} -m kd_runner {words} "$@"\n'
    )


def _plot(path: Path, rows: list[dict[str, Any]]) -> bool:
    """The metric over the first numeric key, a line per combination of the others. False where no key is numeric."""
    keys = varied(rows)
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
