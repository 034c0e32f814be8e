"""How often a report says "gain" where there is none: an undistilled student compared with itself.

    .venv/bin/python benchmarks/false_gains.py

A small net is trained on 150 handwritten digits and measured on 800 others, thousands of times, each time with another
seed (initial weights, order of the data). The runs are dealt out to comparisons of three seeds an arm in which all arms
are the same, and each comparison gets its verdicts from the code of the reports. Every "gain" is false: the two-sided
test at 5 % lets 2.5 % of them through. The same runs are dealt out in three ways: one arm and one control, several arms
under Holm's correction (a family counts if any of its arms is called a gain), and one arm against two controls, where
the harder one counts. The intervals are those of Clopper and Pearson 1934 at 95 %.
"""

import argparse
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from scipy.stats import beta
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from kd_runner.report.comparison import summarize
from kd_runner.report.tables import markdown

TRAIN, VAL, SEEDS = 150, 800, 3
HIDDEN, AT_ONCE = 32, 200


def main() -> None:
    arguments = parser().parse_args()
    torch.set_num_threads(1)
    data, started = digits(), time.perf_counter()
    groups = [range(first, min(first + AT_ONCE, arguments.runs)) for first in range(0, arguments.runs, AT_ONCE)]
    scores = [score for seeds in groups for score in accuracies(data, seeds, arguments.steps)]
    seconds = time.perf_counter() - started
    several = arguments.arms
    rows: list[list[Any]] = [
        ["comparison of three seeds an arm", "comparisons", "with a gain", "%", "95 % interval, %"]
    ]
    rows.append(["one arm, one control", *rate(scores, controls=1, treated=1)])
    rows.append([f"{several} arms, one control, Holm", *rate(scores, controls=1, treated=several)])
    rows.append(["one arm, the harder of two controls", *rate(scores, controls=2, treated=1)])
    print(markdown(rows))
    mean = sum(scores) / len(scores)
    deviation = torch.tensor(scores).std().item()
    print(f"{len(scores)} runs of {arguments.steps} steps in {seconds:.0f} s; accuracy {mean:.3f}, "
          f"standard deviation {deviation:.3f}")  # fmt: skip


def rate(scores: list[float], controls: int, treated: int) -> list[Any]:
    """Comparisons, those with a gain, their percentage and its interval, from scores dealt out in order."""
    size = SEEDS * (controls + treated)
    comparisons = [scores[i : i + size] for i in range(0, len(scores) - size + 1, size)]
    gains = sum(has_gain(one, controls) for one in comparisons)
    low, high = interval(gains, len(comparisons))
    return [len(comparisons), gains, f"{100 * gains / len(comparisons):.1f}", f"{100 * low:.1f} to {100 * high:.1f}"]


def has_gain(scores: list[float], controls: int) -> bool:
    """Whether the report of a comparison calls any arm a gain.

    Args:
        scores: of all arms, three seeds after three, the controls first.
        controls: number of controls.
    """
    arms = {f"arm{i}": scores[SEEDS * i : SEEDS * (i + 1)] for i in range(len(scores) // SEEDS)}
    runs = {
        name: [{"scale": "mini", "metrics": {"accuracy": score}, "steps": 0, "seconds": 0.0} for score in of_arm]
        for name, of_arm in arms.items()
    }
    names = list(arms)
    teacher, seeds = {"accuracy": 1.0}, range(SEEDS)
    summary = summarize("accuracy", seeds, teacher, runs, names[-1], names[:controls], names[controls:])
    return any(gained["verdict"] == "gain" for gained in summary["gains"].values())


def interval(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a binomial rate."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, count - hits + 1))
    high = 1.0 if hits == count else float(beta.ppf(1 - tail, hits + 1, count - hits))
    return low, high


def digits() -> tuple[Tensor, Tensor]:
    """Images (N, 64) in 0..1 and labels (N,), in an order of their own."""
    source = load_digits()
    order = torch.randperm(len(source.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(source.data, dtype=torch.float32)[order] / 16
    return images, torch.tensor(source.target)[order]


def accuracies(data: tuple[Tensor, Tensor], seeds: Iterable[int], steps: int) -> list[float]:
    """Train a net of one hidden layer with each seed; the fraction of validation digits that each gets right.

    All nets are trained at once, as batched matrices: what one does depends on its own seed alone.
    """
    images, labels = data
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    shapes = {"w1": (64, HIDDEN), "b1": (1, HIDDEN), "w2": (HIDDEN, 10), "b2": (1, 10)}
    fans = {"w1": 64, "b1": 64, "w2": HIDDEN, "b2": HIDDEN}
    weights = {
        name: torch.stack([torch.rand(shape, generator=draw) * 2 - 1 for draw in draws]).div_(fans[name] ** 0.5)
        for name, shape in shapes.items()
    }
    for weight in weights.values():
        weight.requires_grad_()
    batches = torch.stack([torch.randint(TRAIN, (steps, 32), generator=draw) for draw in draws], 1)
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for batch in batches:
        optimizer.zero_grad()
        logits = forward(weights, images[batch])
        F.cross_entropy(logits.flatten(0, 1), labels[batch].flatten(), reduction="sum").div(32).backward()
        optimizer.step()
        schedule.step()
    held_out = slice(TRAIN, TRAIN + VAL)
    with torch.no_grad():
        right = forward(weights, images[held_out]).argmax(-1) == labels[held_out]
    return right.double().mean(-1).tolist()


def forward(weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Logits (nets, N, 10) for images (N, 64) or (nets, N, 64)."""
    return (images @ weights["w1"] + weights["b1"]).relu() @ weights["w2"] + weights["b2"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="How often a report says gain where there is none.")
    made.add_argument("--runs", type=int, default=4800, help="trainings in all; 240 make 40 comparisons of two arms")
    made.add_argument("--steps", type=int, default=80, help="optimizer steps of each")
    made.add_argument("--arms", type=int, default=3, help="arms of the comparisons with several")
    return made


if __name__ == "__main__":
    main()
