"""One step of a full-size run, as a process of its own, for the benchmarks beside this file."""

import resource
import subprocess
import sys
import time
from pathlib import Path


def run(folder: Path, words: list[str]) -> str:
    """Time and peak of resident memory of `python -m kd_runner` with `words`, in `folder`."""
    words = ["data.num_workers=0", "callbacks=[epoch_summary]", "export=none", "logger=none", *words]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "kd_runner", *words], check=True, cwd=folder)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return f"{time.perf_counter() - started:.0f} s in all, peak {peak:.1f} GiB"
