"""Any set of runs on one page: runs.csv, comparison.md, and comparison.html, which loads nothing from a network."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from kd_runner.report.comparison import weights_sentence
from kd_runner.report.figures import figures
from kd_runner.report.grouped import Row, Section
from kd_runner.report.runs import Unread
from kd_runner.report.tables import Table, comma_separated, markdown, text, without_empty
from kd_runner.runtime.files import write_text

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 78rem; margin: 0 auto;
  padding: 1rem clamp(.8rem, 3vw, 2rem) 4rem; }
h1 { font-size: 1.6rem; margin: .8rem 0 .2rem; } h2 { margin: 2.6rem 0 .3rem; padding-top: .6rem;
  border-top: 2px solid #1a1a1a; font-size: 1.3rem; overflow-wrap: anywhere; }
nav a { margin-right: 1.2rem; } a { color: #0b5fa5; }
.wide { overflow-x: auto; margin: .8rem 0; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .28rem .55rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top;
  font-variant-numeric: tabular-nums; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
th:first-child, td:first-child, .text td, .text th { text-align: left; }
td:first-child, .text td { min-width: 11rem; overflow-wrap: anywhere; }
tr.teacher td { background: #f3f3f3; } .gain { color: #00704f; font-weight: 600; } .loss { color: #b03000;
  font-weight: 600; }
.scale { display: inline-block; padding: 0 .6rem; border-radius: 1rem; background: #fff0c2; font-size: .85rem; }
.scale.full { background: #cdeccd; } figure { margin: 1.6rem 0; max-width: 62rem; } figcaption { font-weight: 600; }
figure svg { overflow: visible; width: 100%; min-width: 34rem; height: auto; display: block; }
summary { cursor: pointer; }
footer { margin-top: 3rem; color: #555; font-size: .85rem; }
"""

_READING = (
    "± is the half-width of the 95 % interval over the seeds (Student's t). A gain is the mean difference, paired by "
    "seed, to the row without distillation that is the same otherwise, of several to the harder one. Verdicts come "
    "from paired t-tests at 5 %, Holm-corrected over all rows with the same control. Rows of different experiments and "
    "scales are never compared. Latencies come from task=compare: one sample, CPU."
)


def write(
    folder: Path, title: str, sections: Sequence[Section], unread: Sequence[Unread], full_scale: Sequence[Any] = ()
) -> None:
    """Write the three files.

    Args:
        folder: where to write.
        title: heading of the page.
        sections: groups of comparable runs.
        unread: folders that are not in the tables, with the reasons.
        full_scale: rows of the table of what was run at full scale, the head first; empty for none.
    """
    write_text(folder / "runs.csv", comma_separated(_runs(sections)))
    parts = [f"# {title}", *_full_markdown(full_scale)]
    for section in sections:
        parts += [f"## {section.title}", markdown(results(section)), *map(weights_sentence, section.weights)]
        parts += [f"### {kind}\n\n{markdown(rows)}" for kind, rows in _class_tables(section).items()]
    if unread:
        parts += ["## Left out", markdown([["folder", "why"], *([f"`{u.folder}`", u.reason] for u in unread)])]
    write_text(folder / "comparison.md", "\n\n".join([*parts, _READING]) + "\n")
    write_text(folder / "comparison.html", html(title, sections, unread, full_scale))


def results(section: Section) -> Table:
    """One line per row of the section; columns that hold nothing are left out.

    Args:
        section: runs that may be compared.

    Returns:
        The table, the head first: scores and gains in units of the metric, `gap closed` in percent, costs as means over
        the runs (latencies in milliseconds for one sample, `seconds` of the whole run).
    """
    head = ["", section.monitor, "±", "seeds", "gain", "± gain", "against", "gap closed, %", "verdict", "parameters, M",
            "multiply-adds, M", "torch, ms", "onnxruntime, ms", "steps", "seconds"]  # fmt: skip
    lines = [_line(row) for row in section.rows]
    return without_empty([head, *lines])


def _line(row: Row) -> list[Any]:
    mean, against = row.mean, row.against
    control = None if row.control is None else row.control.label
    gained = [against.mean, against.half_width, control, row.closed_percent, row.verdict] if against else [None] * 5
    seeds = None if row.runs[0].seed is None else len(row.runs)
    millions = [row.cost(name) / 1e6 for name in ("parameters", "macs")]
    times = [row.cost(name) for name in ("torch_ms", "onnxruntime_ms")]
    counts = [_whole(row.cost(name)) for name in ("steps", "seconds")]
    return [row.label, mean.mean, mean.half_width, seeds, *gained, *millions, *times, *counts]


def _whole(value: float) -> int | None:
    return None if math.isnan(value) else round(value)


def _class_tables(section: Section) -> dict[str, Table]:
    """Per kind of metric: one line per class, one column per row of the section."""
    names = dict.fromkeys(name for row in section.rows for run in row.runs for name in run.metrics)
    tables: dict[str, Table] = {}
    for name in names:
        kind, _, label = name.rpartition("/")
        table = tables.setdefault(kind or "every metric", [["", *(row.label for row in section.rows)]])
        table.append([label, *(row.metric(name) for row in section.rows)])
    return {kind: without_empty(table) for kind, table in tables.items()}


def _runs(sections: Sequence[Section]) -> Table:
    """One line per run, of all sections."""
    runs = [(section, row, run) for section in sections for row in section.rows for run in row.runs]
    metrics = dict.fromkeys(name for _, _, run in runs for name in run.metrics)
    costs = dict.fromkeys(name for _, _, run in runs for name in run.costs)
    table: Table = [["experiment", "scale", "row", "seed", "monitor", "score", *metrics, *costs, "folder"]]
    for section, row, run in runs:
        values = [run.metrics.get(name) for name in metrics] + [run.costs.get(name) for name in costs]
        head = [section.experiment, section.scale, row.label, run.seed, section.monitor, run.score]
        table.append([*head, *values, run.folder])
    return table


def _full_markdown(full_scale: Sequence[Any]) -> list[str]:
    return ["## At full scale", markdown(full_scale)] if full_scale else []


def html(
    title: str, sections: Sequence[Section], unread: Sequence[Unread], full_scale: Sequence[Sequence[Any]] = ()
) -> str:
    """The page as text.

    Args:
        title: heading of the page.
        sections: groups of comparable runs.
        unread: folders that are not in the tables, with the reasons.
        full_scale: rows of the table of what was run at full scale, the head first; empty for none.

    Returns:
        A whole HTML document, with its style and figures in it.
    """
    links = [f'<a href="#s{i}">{escape(section.title)}</a>' for i, section in enumerate(sections)]
    links += ['<a href="#full">at full scale</a>'] if full_scale else []
    links += ['<a href="#left_out">left out</a>'] if unread else []
    body = [f"<h1>{escape(title)}</h1>", f"<nav>{' '.join(links)}</nav>"]
    for i, section in enumerate(sections):
        body += [f'<h2 id="s{i}">{escape(section.experiment)} {_badge(section.scale)}</h2>', *_section(section)]
    if full_scale:
        body += ['<h2 id="full">At full scale</h2>', _table(full_scale, "text")]
    if unread:
        lines = [["folder", "why"], *([str(u.folder), u.reason] for u in unread)]
        body += ['<h2 id="left_out">Left out</h2>', _table(lines, "text")]
    body += [f"<footer>{escape(_READING)} </footer>"]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _badge(scale: str) -> str:
    return f'<span class="scale {escape(scale)}">scale {escape(scale)}</span>'


def _section(section: Section) -> list[str]:
    parts = [_table(results(section), "", section.rows)]
    parts += [f"<p>{escape(weights_sentence(weights))}</p>" for weights in section.weights]
    for row in section.rows:
        if len(row.runs) > 1:
            parts.append(_sentence(row))
    for caption, svg in figures(section).items():
        parts.append(f'<figure><figcaption>{escape(caption)}</figcaption><div class="wide">{svg}</div></figure>')
    for kind, rows in _class_tables(section).items():
        parts.append(f"<details><summary>{escape(kind)}, in numbers</summary>{_table(rows, '')}</details>")
    folders = [[row.label, str(run.seed if run.seed is not None else "–"), str(run.folder)] for row in section.rows
               for run in row.runs]  # fmt: skip
    table = _table([["row", "seed", "folder"], *folders], "text")
    parts.append(f"<details><summary>run folders</summary>{table}</details>")
    return parts


def _sentence(row: Row) -> str:
    """Gain and verdict of a row in one line of HTML; empty without a control."""
    if row.against is None or row.control is None:
        return ""
    half = "" if math.isnan(row.against.half_width) else f" ± {text(row.against.half_width)}"
    seeds = f"{len(row.runs)} seed{'s' if len(row.runs) > 1 else ''}"
    return (
        f"<div><b>{escape(row.label)}</b> against {escape(row.control.label)}: {row.against.mean:+.4f}{half} over "
        f"{seeds}: {_verdict(row.verdict)}</div>"
    )


def _verdict(verdict: str) -> str:
    return f'<span class="{verdict if verdict in ("gain", "loss") else ""}">{escape(verdict)}</span>'


def _table(lines: Sequence[Sequence[Any]], kind: str, rows: Sequence[Row] = ()) -> str:
    """An HTML table; the first line is the head, `rows` mark the teacher's line."""
    head = "".join(f"<th>{escape(text(cell))}</th>" for cell in lines[0])
    body = []
    for i, line in enumerate(lines[1:]):
        mark = ' class="teacher"' if i < len(rows) and rows[i].is_teacher else ""
        cells = [_verdict(cell) if cell in ("gain", "loss") else escape(text(cell)) for cell in line]
        body.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f'<div class="wide {kind}"><table><tr>{head}</tr>{"".join(body)}</table></div>'
