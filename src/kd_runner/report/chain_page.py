"""The report of task=assistant_chain: report.md and table.csv."""

from pathlib import Path

from kd_runner.report.comparison import (
    Summary,
    class_table,
    data_table,
    gain_sentences,
    reading,
    results_table,
    untrained,
)
from kd_runner.report.tables import Table, comma_separated, markdown
from kd_runner.runtime.files import write_text


def write(folder: Path, summary: Summary) -> None:
    """Write both files.

    Args:
        folder: where to write; files of the same names are replaced.
        summary: as `comparison.summarize` makes it, with `stages` in order and `costs` of every net.
    """
    stages = summary["stages"]
    teachers = dict(zip(stages, ["teacher", *stages])) | {"direct": "teacher"}
    table = results_table(summary, teachers)
    write_text(folder / "table.csv", comma_separated(table))
    sections = [
        f"# {folder.name}: {' → '.join(['teacher', *stages])}",
        f"Scale **{summary['scale']}**, metric `{summary['monitor']}`, seeds {summary['seeds']}. `direct` is the "
        f"student of the last stage, taught by the teacher itself. {reading(summary)}",
        markdown(table),
        *untrained(summary),
        *(line for name, gained in summary["gains"].items() for line in gain_sentences(name, gained)),
        "## Data",
        markdown(data_table(summary)),
        "## Cost",
        markdown(_costs(summary)),
        "## Per class",
        markdown(class_table(summary)),
        "Each stage and seed has its own folder here, with its configuration, checkpoints and curves. All of it on "
        "one page: `comparison.html`.",
    ]
    write_text(folder / "report.md", "\n\n".join(sections) + "\n")


def _costs(summary: Summary) -> Table:
    rows: Table = [["net", "parameters", "multiply-adds", "torch, ms"]]
    for name in ("teacher", *summary["arms"]):
        cost = summary["costs"][name]
        rows.append([name, cost["parameters"], cost["macs"], cost["torch_ms"]])
    return rows
