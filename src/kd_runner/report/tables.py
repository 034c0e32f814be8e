"""Tables as markdown and CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Any


def text(value: Any) -> str:
    """Four decimals for a fraction, separators in a large count, a dash for nothing or nan."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """The first row is the head."""
    head, *body = [[text(value) for value in row] for row in rows]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def comma_separated(rows: Sequence[Sequence[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([["" if v is None else v for v in row] for row in rows])
    return file.getvalue()
