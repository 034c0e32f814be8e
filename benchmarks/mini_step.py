"""Processor time of a training step of one checkout over that of another, side by side.

    git worktree add /tmp/before 3a4b1e4
    .venv/bin/python benchmarks/mini_step.py --against /tmp/before --experiment voc_kd

A round runs `python -m kd_runner task=train` in each checkout, one after the other, in turns; the first steps of a run
are dropped, since they warm up. Printed are milliseconds of a step, all threads, and the median of the rounds' ratios.
With recorded teacher outputs (`kd.teacher_cache`) the first round fills the cache: `--rounds 3` has two that read it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
# Runs in the checkout's own code: notes the processor time after every optimizer step.
CHILD = """
import json, sys, time
from torch.optim.optimizer import register_optimizer_step_post_hook
times = []
register_optimizer_step_post_hook(lambda *_: times.append(time.process_time()))
from kd_runner.cli.main import main
file, sys.argv = sys.argv[1], ["kd_runner", *sys.argv[2:]]
try:
    main()
finally:
    open(file, "w").write(json.dumps(times))
"""


def step_ms(checkout: Path, words: list[str], dropped: int) -> float:
    """Milliseconds of processor time of a step."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        quiet = ["export=none", "logger=none", "callbacks=[epoch_summary]", f"hydra.run.dir={folder}/run"]
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
        command = [sys.executable, "-c", CHILD, str(file), *words, *quiet]
        subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        times = json.loads(file.read_text())[dropped:]
    return 1e3 * (times[-1] - times[0]) / (len(times) - 1)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--against", type=Path, required=True, help="another checkout")
    words.add_argument("--experiment", default="voc_kd")
    words.add_argument("--steps", type=int, default=20)
    words.add_argument("--dropped", type=int, default=4)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("words", nargs="*", help="further words for kd_runner")
    given = words.parse_args()
    own = [f"experiment={given.experiment}", f"data.steps_per_epoch={given.steps + given.dropped}", "threads=1"]
    own += ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", *given.words]
    rows = []
    for turn in range(given.rounds):
        order = [ROOT, given.against.resolve()]
        ms = {checkout: step_ms(checkout, own, given.dropped) for checkout in (order if turn % 2 else order[::-1])}
        rows.append((ms[order[0]], ms[order[1]]))
        print(f"round {turn + 1}: {rows[-1][0]:.0f} ms, {rows[-1][1]:.0f} ms before", flush=True)
    print(f"{given.experiment}: {median(new / before for new, before in rows):.3f} of the step before")


if __name__ == "__main__":
    main()
