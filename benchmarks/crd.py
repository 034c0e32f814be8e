"""What a step of contrastive representation distillation costs: embeddings, both sides' scores, backward, update.

    GOMP_SPINCOUNT=0 OMP_WAIT_POLICY=PASSIVE .venv/bin/python benchmarks/crd.py --batch 16 64 --json crd.json

Ways, on the same features and (all but "own negatives") the same negatives, given:
- yardstick: batch times the whole bank, then gather the K + 1 scores; autograd does the rest.
- kd_runner: `losses.crd.CRD`; "own negatives": drawing them is counted too.
- queue: the same with the last `--queue` embeddings instead of the bank: its cost is free of n_data.
- gather first: copy K + 1 rows of the bank for each sample, then multiply: the order of the published implementations.

How to read it. A round runs every way once, in an order that rotates. "x yardstick" is the median of the ratios to the
yardstick of the same round (in brackets: smallest to largest); of kd_runner at most 1.5 is demanded. CPU time is the
process's, all threads: the one to trust on a shared machine. Peak memory is what one step adds to the resident memory
at its highest (Linux only). "off" is the largest relative difference of the value in the first step, before which all
banks are equal; a queue has other negatives and other positives, so there is nothing to compare.
"""

import argparse
import ctypes
import gc
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.crd import CRD

DIM, TEMPERATURE, CHANNELS = 128, 0.07, (192, 384)
Step = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Plain(nn.Module):
    """The formulas in autograd's hands, on the banks and embeddings of a CRD, with Z fixed by the first batch."""

    def __init__(self, crd: CRD, gather_first: bool):
        super().__init__()
        self.gather_first = gather_first
        self.z: list[Tensor] = []
        self.embeddings = nn.ModuleList([crd.embed_s, crd.embed_t])
        self.banks = [crd.memory.student, crd.memory.teacher]

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor, negatives: Tensor) -> Tensor:
        rows, size = torch.cat([index[:, None], negatives], dim=1), len(self.banks[0])
        vectors = [F.normalize(embed(x), dim=1) for embed, x in zip(self.embeddings, (student, teacher))]
        c, total = negatives.shape[1] / size, torch.zeros(())
        for side, (anchor, bank) in enumerate(zip(vectors, reversed(self.banks))):
            if self.gather_first:
                score = torch.bmm(bank[rows.flatten()].view(*rows.shape, DIM), anchor[:, :, None])[:, :, 0]
            else:
                score = (anchor @ bank.T).gather(1, rows)
            score = (score / TEMPERATURE).exp()
            if len(self.z) == side:
                self.z.append(score.detach().mean() * size)
            p, eps = score / self.z[side], 1e-7
            total = total + torch.log1p((c + eps) / p[:, 0]).sum() + torch.log1p((p[:, 1:] + eps) / c).sum()
        self.vectors, self.index = vectors, index
        return total / len(index)

    def update(self) -> None:
        """After backward, which still needs the banks."""
        for bank, new in zip(self.banks, self.vectors):
            bank[self.index] = F.normalize(0.5 * bank[self.index] + 0.5 * new.detach(), dim=1)


def ways(n_data: int, negatives: int, queue: int) -> dict[str, Step]:
    """Each way as one step, on banks of its own that start equal."""

    def crd(**memory: int) -> CRD:
        loss = CRD(**memory, num_negatives=min(negatives, *memory.values()), dim=DIM, temperature=TEMPERATURE)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            loss.build(*(torch.zeros(1, width) for width in CHANNELS))
        return loss

    def plain(gather_first: bool) -> Step:
        module = Plain(crd(n_data=n_data), gather_first)

        def step(student: Tensor, teacher: Tensor, index: Tensor, rows: Tensor) -> Tensor:
            value = module(student, teacher, index, rows)
            value.backward()
            module.update()
            return value.detach()

        return step

    def runner(loss: CRD, given: bool) -> Step:
        def step(student: Tensor, teacher: Tensor, index: Tensor, rows: Tensor) -> Tensor:
            value = loss(student, teacher, index, negatives=rows if given else None)
            value.backward()
            return value.detach()

        return step

    return {
        "yardstick": plain(gather_first=False),
        "kd_runner": runner(crd(n_data=n_data), given=True),
        "kd_runner, own negatives": runner(crd(n_data=n_data), given=False),
        f"kd_runner, queue of {queue}": runner(crd(queue=queue), given=False),
        "gather first": plain(gather_first=True),
    }


def _status(field: str) -> float:
    """MiB of this process, from /proc."""
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match.group(1)) / 1024 if match else float("nan")


def peak(call: Callable[[], Any]) -> float:
    """MiB that a call adds to the resident memory at its highest."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def measure(batch: int, n_data: int, negatives: int, queue: int, rounds: int) -> dict[str, Any]:
    """CPU milliseconds by way and round; MiB of a step; differences of the first value."""
    steps = ways(n_data, negatives, queue)
    generator = torch.Generator().manual_seed(0)

    def inputs() -> tuple[Tensor, ...]:
        student, teacher = (torch.randn(batch, width, generator=generator) for width in CHANNELS)
        index = torch.randperm(n_data, generator=generator)[:batch]
        return student.requires_grad_(), teacher, index, torch.randint(n_data, (batch, negatives), generator=generator)

    first = inputs()
    values = {name: float(step(*first)) for name, step in steps.items()}
    result: dict[str, Any] = {"ms": {name: [] for name in steps}}
    result["off"] = {name: abs(value / values["yardstick"] - 1) for name, value in values.items()}
    result["mib"] = {name: peak(lambda step=step: step(*inputs())) for name, step in steps.items()}
    names = list(steps)
    for turn in range(rounds):
        given = inputs()
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.process_time()
            steps[name](*given)
            result["ms"][name].append(1e3 * (time.process_time() - started))
    return result


def table(result: dict[str, Any]) -> str:
    lines = ["| way | CPU ms/step | x yardstick | peak MiB of a step | off |", "|---|---|---|---|---|"]
    for name, rounds in result["ms"].items():
        ratios = [own / base for own, base in zip(rounds, result["ms"]["yardstick"])]
        off = "–" if "queue" in name or "own" in name else f"{result['off'][name]:.1g}"
        lines.append(
            f"| {name} | {median(rounds):.4g} | **{median(ratios):.2f}** ({min(ratios):.2f}-{max(ratios):.2f}) "
            f"| {result['mib'][name]:.0f} | {off} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--n-data", type=int, nargs="+", default=[50_000])
    parser.add_argument("--negatives", type=int, default=16384)
    parser.add_argument("--queue", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures of every round")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = {}
    for n_data in args.n_data:
        for batch in args.batch:
            title = f"batch {batch}, n_data {n_data}, K {args.negatives}, dim {DIM}"
            results[title] = measure(batch, n_data, args.negatives, args.queue, args.rounds)
            print(f"{title}, {args.rounds} rounds, {args.threads} threads, torch {torch.__version__}\n")
            print(table(results[title]), end="\n\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
