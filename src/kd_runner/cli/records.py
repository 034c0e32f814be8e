"""The records of docs/results, made anew: `scripts/records`, or `scripts/records voc_kd_mini`.

Every record is a comparison (`task=record`) in a folder of its own below `outputs/records`. It may be stopped at any
time: the same command goes on where it was, and makes again only what is missing. A record that ended is not run again;
delete its folder to have it made from the start. A record that fails stops no other.
"""

import argparse
import hashlib
import os
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kd_runner.errors import ConfigError, nearest
from kd_runner.report import record_page
from kd_runner.runtime.signals import stoppable

RECORDS = Path("docs/results/records.yaml")


@dataclass(frozen=True)
class Record:
    """A comparison whose report is a page of docs/results.

    Attributes:
        name: stem of its page.
        words: the command's, without task, seeds and folder.
        seeds: of the comparison.
        chosen: on which data its settings were chosen, in a sentence.
    """

    name: str
    words: list[str]
    seeds: list[int]
    chosen: str


def main(words: list[str] | None = None) -> int:
    """Make the records, one after the other.

    Args:
        words: of the command line; None for those of this process.

    Returns:
        Exit code: 1 where one failed.
    """
    parser = argparse.ArgumentParser("scripts/records", description=__doc__.split("\n\n", 1)[1])
    parser.add_argument("names", nargs="*", help="pages, without .md (default: all)")
    parser.add_argument("--seeds", help="other seeds than the file says, e.g. 0,1,2")
    parser.add_argument("--file", type=Path, default=RECORDS, help="the list of records")
    parser.add_argument("--docs", type=Path, help="folder of the pages (default: that of the list)")
    parser.add_argument("--out", type=Path, default=Path("outputs/records"), help="folder of the comparisons")
    words = list(sys.argv[1:] if words is None else words)
    own, more = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    args = parser.parse_args(own)  # what follows `--` goes to every comparison
    try:
        records = read(args.file, args.names, args.seeds)
    except ConfigError as error:
        parser.error(str(error))
    failed = [
        record.name for record in records if not _write_record(record, args.docs or args.file.parent, args.out, more)
    ]
    if failed:
        print(f"failed or stopped: {', '.join(failed)}; the same command goes on with them", file=sys.stderr)
    return int(bool(failed))


def read(file: Path, names: list[str], seeds: str | None = None) -> list[Record]:
    """The records of a list.

    Args:
        file: yaml, name to `words`, `seeds`, `chosen`.
        names: of the records; empty for all.
        seeds: numbers with commas, instead of those of the file.

    Returns:
        The records.

    Raises:
        ConfigError: there is no such record.
    """
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    for name in names:
        if name not in content:
            raise ConfigError(f"no record {name!r} in {file}.{nearest(name, content)}")
    own = None if seeds is None else [int(seed) for seed in seeds.split(",")]
    return [
        Record(name, list(node["words"]), own or list(node["seeds"]), " ".join(str(node["chosen"]).split()))
        for name, node in content.items()
        if not names or name in names
    ]


def _write_record(record: Record, docs: Path, out: Path, more: list[str]) -> bool:
    """Run or go on with the comparison of a record, and write its page. Whether that worked."""
    seeds = ",".join(map(str, record.seeds))
    suffix = f"_{hashlib.sha256(' '.join(more).encode()).hexdigest()[:8]}" if more else ""  # other words: another run
    folder = out / f"{record.name}{suffix}"
    command = [*record.words, "task=record", f"seeds=[{seeds}]", *more]
    print(f"== {record.name}: {folder}", flush=True)
    page = docs / f"{record.name}.md"
    try:
        record_page.above(page, record.name)  # a page without its marker is named before hours of training
        if run_command([sys.executable, "-m", "kd_runner", *command, f"hydra.run.dir={folder}"]):
            return False
        files = record_page.write(page, folder, ["python", "-m", "kd_runner", *command], record.chosen, _machine())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return False
    print(*files, sep="\n", flush=True)
    return True


def run_command(command: list[str]) -> int:
    """Run a program; told to stop, let it stop in order first.

    Args:
        command: the program and its arguments.

    Returns:
        Its exit code.
    """
    with stoppable():
        process = subprocess.Popen(command)
        try:
            return process.wait()
        except SystemExit as stopped:
            if stopped.code != 128 + signal.SIGINT:  # that of a terminal reaches both
                process.terminate()
            process.wait()
            raise


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{cores} CPU core{'s' if cores > 1 else ''} ({platform.machine()})"


if __name__ == "__main__":
    raise SystemExit(main())
