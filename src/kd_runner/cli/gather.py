"""Finished runs side by side: `python -m kd_runner.cli.gather outputs/voc_kd/* outputs/orion_kd/sweep_seed`.

Takes run folders of any kind (task=train, train_teacher, evaluate, compare, assistant_chain), sweeps, and folders that
hold such folders. Experiments and scales are kept apart, seeds brought together. What cannot be read is named, and left
out.
"""

import argparse
import logging
import sys
from datetime import datetime
from pathlib import Path

from kd_runner.report import full_scale, gathered_page
from kd_runner.report.grouped import group
from kd_runner.report.runs import collect
from kd_runner.report.tables import markdown
from kd_runner.runtime.run_names import OUTPUTS


def main(words: list[str] | None = None) -> int:
    """Write the page and print its path.

    Args:
        words: of the command line; None for those of this process.

    Returns:
        Exit code: 1 where there was nothing to show.
    """
    parser = argparse.ArgumentParser("python -m kd_runner.cli.gather", description=__doc__.split("\n\n", 1)[1])
    parser.add_argument("folders", nargs="+", type=Path, help="finished runs, or folders of them")
    parser.add_argument("--out", type=Path, help="where to write (default: outputs/compared/<date_time>)")
    parser.add_argument("--title", default="Runs side by side")
    parser.add_argument("--full-scale", type=Path, help="yaml file of what was run at full scale: a table beside")
    args = parser.parse_args(words)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    try:
        state = full_scale.read(args.full_scale) if args.full_scale is not None else []
    except ValueError as error:
        parser.error(str(error))
    runs, unread = collect(args.folders)
    sections, repeated = group(runs)
    for one in (*unread, *repeated):
        print(f"left out: {one.folder}: {one.reason}", file=sys.stderr)
    if not sections:
        print("No finished run was found.", file=sys.stderr)
        return 1
    out = args.out or OUTPUTS / "compared" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    gathered_page.write(out, args.title, sections, [*unread, *repeated], state)
    for section in sections:
        print(f"\n{section.title}\n\n{markdown(gathered_page.results(section))}")
    print(f"\n{out / 'comparison.html'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
