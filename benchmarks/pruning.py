"""Which heads and hidden units to cut: scores, budgets and schedules on the mini ORION task, over three seeds.

    .venv/bin/python benchmarks/pruning.py --epochs 3 --steps 25

Every line of the table is `experiment=orion_kd pruning=half` with one thing changed, trained by distillation for the
same number of steps; `cut` is the detection mAP right after the cut (of the progressive schedule: its first round),
`trained` after the steps. Seeds change the order of the data and its augmentation; of `random` also what is cut.
Two runs go side by side, one thread each. Writes the table beside the runs.
"""

import argparse
import json
import logging
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from omegaconf import OmegaConf

from kd_runner.config.compose import compose
from kd_runner.report.statistics import Estimate, estimate
from kd_runner.report.tables import markdown
from kd_runner.runtime.files import write_json, write_text
from kd_runner.runtime.processes import in_parallel
from kd_runner.runtime.run_folder import RunFolder

GLOBAL = ["pruning.heads.ranking=global", "pruning.heads.floor=0.25", "pruning.hidden.ranking=global",
          "pruning.hidden.floor=0.25"]  # fmt: skip
VARIANTS = {
    "Taylor, per block, at once": [],
    "magnitude": ["pruning/score=magnitude"],
    "gradient": ["pruning/score=gradient"],
    "random": ["pruning/score=random"],
    "global budget, floor 25 %": GLOBAL,
    "progressive, 3 rounds": ["pruning.schedule.end=2", "pruning.schedule.rounds=3"],
}


def main() -> None:
    arguments = parser().parse_args()
    folder = Path(arguments.folder).resolve()
    calls = {
        (name, seed): (settings(words, seed, arguments.epochs, arguments.steps), run_folder_of(folder, name, seed))
        for name, words in VARIANTS.items()
        for seed in arguments.seeds
    }
    list(in_parallel(train_and_measure, calls.values(), arguments.workers))
    results = {key: json.loads((path / "result.json").read_text()) for key, (_, path) in calls.items()}
    rows = [["pruning=half", "parameters left", "mAP, cut", "mAP, trained", *(f"seed {s}" for s in arguments.seeds)]]
    for name in VARIANTS:
        runs = [results[name, seed] for seed in arguments.seeds]
        left = [run["pruning"]["after"]["parameters"] / run["pruning"]["before"]["parameters"] for run in runs]
        trained = [run["score"] for run in runs]
        rows.append([name, f"{100 * left[0]:.1f} %", plus_minus(estimate([run["cut"] for run in runs])),
                     plus_minus(estimate(trained)), *(f"{score:.3f}" for score in trained)])  # fmt: skip
    table = markdown(rows)
    write_text(folder / "pruning.md", table + "\n")
    print(table)


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--epochs", type=int, default=3, help="the schedule in rounds needs 3")
    words.add_argument("--steps", type=int, default=50, help="of an epoch")
    words.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    words.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    words.add_argument("--folder", default="outputs/benchmark_pruning")
    return words


def settings(words: list[str], seed: int, epochs: int, steps: int) -> Any:
    """The resolved configuration as plain containers, to be passed to another process."""
    common = ["experiment=orion_kd", "pruning=half", f"seed={seed}", f"trainer.max_epochs={epochs}", "export=none",
              f"data.steps_per_epoch={steps}", "callbacks=[checkpoints,epoch_summary]",
              "trainer.check_val_every_n_epoch=1"]  # fmt: skip
    return OmegaConf.to_container(compose([*common, *words]), resolve=True)


def run_folder_of(folder: Path, name: str, seed: int) -> Path:
    return folder / name.replace(",", "").replace(" %", "").replace(" ", "_") / f"seed{seed}"


def train_and_measure(content: dict, folder: Path) -> None:
    """One run; does nothing where its result exists."""
    from kd_runner.config import build
    from kd_runner.tasks.evaluate import measure
    from kd_runner.tasks.train import train

    logging.getLogger("kd_runner").setLevel(logging.WARNING)
    cfg = OmegaConf.create(content)
    if (folder / "result.json").exists():
        return
    train(cfg, RunFolder(folder))
    cut = cfg.copy()
    cut.student.checkpoint = str(folder / "student_untrained.safetensors")
    before = measure(cut, folder, build.student(cut), build.data(cut))
    result = json.loads((folder / "metrics.json").read_text())
    write_json(folder / "result.json", {**result, "cut": before[cfg.monitor]})


def plus_minus(value: Estimate) -> str:
    return f"{value.mean:.3f} +- {value.half_width:.3f}"


if __name__ == "__main__":
    main()
