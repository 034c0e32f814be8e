"""Tables as markdown and CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Any

Table = list[list[Any]]
"""Rows of cells; the first row is the head."""


def text(value: Any) -> str:
    """A cell as text: four decimals for a fraction, separators in a large count, a dash for None or nan.

    Args:
        value: the cell.

    Returns:
        The text; a fraction of 10 or more has one decimal, a truth value is yes or no.
    """
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def without_empty(rows: Sequence[Sequence[Any]], keep: int = 1) -> Table:
    """The table without rows and columns that hold no value beside their label.

    Args:
        rows: the head first.
        keep: number of leading columns that are labels: they are kept, and do not make a row count as filled.

    Returns:
        A new table; a dash and an empty text count as no value.
    """
    head, body = rows[0], [row for row in rows[1:] if any(_filled(cell) for cell in row[keep:])]
    columns = [i for i in range(len(head)) if i < keep or any(_filled(row[i]) for row in body)]
    return [[row[i] for i in columns] for row in (head, *body)]


def _filled(cell: Any) -> bool:
    return text(cell) not in ("–", "")


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """A markdown table; the first row is the head.

    Args:
        rows: the head first; cells of any type, see `text`.

    Returns:
        The table without a line break at its end; all columns but the first are aligned to the right.
    """
    head, *body = [[text(value) for value in row] for row in rows]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def comma_separated(rows: Sequence[Sequence[Any]]) -> str:
    """A CSV text; None becomes an empty cell.

    Args:
        rows: the head first; numbers are written in full.

    Returns:
        The text, a line per row.
    """
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([["" if v is None else v for v in row] for row in rows])
    return file.getvalue()
