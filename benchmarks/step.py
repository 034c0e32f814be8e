"""What kd_runner's loop costs per step, over a hand-written one: ResNet34 teacher, ResNet18 student, 96 px, on CPU.

    GOMP_SPINCOUNT=0 OMP_WAIT_POLICY=PASSIVE .venv/bin/python benchmarks/step.py --rounds 7 --steps 10 --json step.json

Loops, all with the same nets, batches and loss (cross entropy and KL at T=4; fp32, batch 16, SGD with momentum):
- floor: teacher in inference mode, student forward, backward, step; nothing else.
- lightning: the floor's lines in a bare LightningModule, under a Trainer with everything switched off.
- kd_runner: Distiller, terms and taps by name, under the project's own Trainer (conf/trainer/cpu.yaml, TensorBoard).
- torchdistill 1.1.5: its DistillationBox without its meters. Needs `pip install kd-runner[benchmark]`.

How to read it. A round runs every loop once, from the same student, in an order that rotates; a loop's first step is
dropped. "x floor" is the median of the ratios to the floor of the same round (in brackets: smallest to largest); of
kd_runner at most 1.05 is demanded. CPU time is the process's, all threads: the one to trust on a shared machine, with
--threads 1. Differences under about 5 % (CPU time) and 3 % (wall, quiet machine) are noise; more rounds help.
"off" is the largest absolute difference of a weight or batch-norm statistic from the floor's student after the first
round: 0 is the same work bit for bit. kd_runner's loss modules round otherwise than torch's KLDivLoss, so its reference
is a second floor with these modules; the line below the table tells how far apart the two floors end, and how far
weights moved.
"""

import argparse
import contextlib
import copy
import gc
import io
import json
import logging
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18, resnet34

from kd_runner import build
from kd_runner.distiller import Distiller
from kd_runner.losses.kl_logits import KLLogits
from kd_runner.losses.task_ce import CrossEntropy
from kd_runner.losses.terms import Term
from kd_runner.taps import TappedNet

try:
    from torchdistill.core.distillation import DistillationBox
except ImportError:
    DistillationBox = None

LossFn = Callable[[Tensor, Tensor, Tensor], Tensor]
CONF = Path(__file__).resolve().parents[1] / "conf"
TEMPERATURE, ALPHA = 4.0, 0.9
SGD = {"lr": 0.01, "momentum": 0.9}


class Clock:
    """Reads both clocks after every optimizer step: from one reading to the next is one full turn of any loop."""

    def __init__(self) -> None:
        self.readings: list[tuple[float, float]] = []

    def watch(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        optimizer.register_step_post_hook(lambda *_: self.readings.append((time.process_time(), time.perf_counter())))
        return optimizer

    def sgd(self, params: Iterable[Any]) -> torch.optim.Optimizer:
        return self.watch(torch.optim.SGD(params, **SGD))

    def ms_per_step(self) -> dict[str, float]:
        turns = len(self.readings) - 1
        return {
            name: 1e3 * (last - first) / turns
            for name, first, last in zip(("cpu", "wall"), self.readings[0], self.readings[-1])
        }


def kd_loss(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    log_student, soft_teacher = F.log_softmax(student / TEMPERATURE, 1), F.softmax(teacher / TEMPERATURE, 1)
    kl = F.kl_div(log_student, soft_teacher, reduction="batchmean")
    return ALPHA * TEMPERATURE**2 * kl + (1 - ALPHA) * F.cross_entropy(student, target)


def own_loss(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """The same in kd_runner's arithmetic: it rounds otherwise."""
    return ALPHA * KLLogits(TEMPERATURE)(student, teacher) + (1 - ALPHA) * CrossEntropy()(student, target)


def floor(
    teacher: nn.Module, student: nn.Module, batches: DataLoader, clock: Clock, loss_fn: LossFn = kd_loss
) -> None:
    optimizer = clock.sgd(student.parameters())
    for batch in batches:
        with torch.inference_mode():
            soft = teacher(batch["image"])
        loss = loss_fn(student(batch["image"]), soft, batch["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Bare(LightningModule):
    def __init__(self, teacher: nn.Module, student: nn.Module, clock: Clock):
        super().__init__()
        self.student, self.teacher, self.clock = student, (teacher,), clock

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        with torch.inference_mode():
            soft = self.teacher[0](batch["image"])
        return kd_loss(self.student(batch["image"]), soft, batch["target"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.clock.sgd(self.student.parameters())


def bare_lightning(teacher: nn.Module, student: nn.Module, batches: DataLoader, clock: Clock) -> None:
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(accelerator="cpu", devices=1, max_epochs=1, **off).fit(Bare(teacher, student, clock), batches)


def kd_runner(teacher: nn.Module, student: nn.Module, batches: DataLoader, clock: Clock) -> None:
    terms = [
        Term("task_ce", CrossEntropy(), {"logits": "student.logits", "target": "batch.target"}),
        Term("kl_logits", KLLogits(TEMPERATURE), {"student": "student.logits", "teacher": "teacher.logits"}),
    ]
    ours, theirs = (TappedNet(net, {"x": "image"}, {"logits": ":"}, "net") for net in (student, teacher))
    distiller = Distiller(ours, theirs, terms, optimizer=clock.sgd, alpha=ALPHA)
    files = {"trainer": "cpu", "logger": "tensorboard"}
    settings = OmegaConf.create({part: OmegaConf.load(CONF / part / f"{name}.yaml") for part, name in files.items()})
    settings.trainer.update(max_epochs=1, enable_checkpointing=False)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # no terminal, no bar
        build.trainer(settings, Path(folder)).fit(distiller, batches)


def torchdistill(teacher: nn.Module, student: nn.Module, batches: DataLoader, clock: Clock) -> None:
    logits = {"student_module_path": ".", "student_module_io": "output"}
    logits |= {"teacher_module_path": ".", "teacher_module_io": "output"}
    # Its alpha weighs the labels, 1 - alpha the teacher.
    kd = {"key": "KDLoss", "kwargs": {**logits, "temperature": TEMPERATURE, "alpha": 1 - ALPHA}}
    config = {
        "num_epochs": 1,
        "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "SGD", "kwargs": dict(SGD)},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}}},
    }
    box = DistillationBox(teacher, student, {}, config, torch.device("cpu"), None, False, 1)
    clock.watch(box.optimizer)
    box.pre_epoch_process(epoch=0)
    for batch in batches:
        box.post_forward_process(loss=box.forward_process(batch["image"], batch["target"], {}))


LOOPS: dict[str, Callable[..., None]] = {"floor": floor, "lightning": bare_lightning, "kd_runner": kd_runner}
if DistillationBox is not None:
    LOOPS["torchdistill"] = torchdistill


def distance(ours: nn.Module, theirs: nn.Module) -> float:
    """Largest absolute difference of any weight or batch-norm statistic."""
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs if a.is_floating_point())


def measure(teacher: nn.Module, student: nn.Module, batches: list[dict[str, Tensor]], rounds: int) -> dict[str, Any]:
    """Milliseconds per step of each loop and round, and after the first round how far the students are off.

    Raises:
        RuntimeError: a loop moved its teacher.
    """
    loader = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def train(loop: Callable[..., None], **more: Any) -> tuple[nn.Module, dict[str, float]]:
        # torchdistill leaves the teacher's mode as it is, so everybody gets one in eval mode.
        fixed, trained, clock = copy.deepcopy(teacher).eval(), copy.deepcopy(student).train(), Clock()
        torch.use_deterministic_algorithms(False)  # a Trainer sets it for the whole process
        gc.collect()
        loop(fixed, trained, loader, clock, **more)
        if moved := distance(fixed, teacher):
            raise RuntimeError(f"{loop.__name__} moved its teacher by {moved}")
        return trained, clock.ms_per_step()

    names = list(LOOPS)
    result: dict[str, Any] = {"ms": {name: [] for name in names}}
    for turn in range(rounds):
        students = {}
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            students[name], ms = train(LOOPS[name])
            result["ms"][name].append(ms)
        if turn == 0:
            own_floor, _ = train(floor, loss_fn=own_loss)
            references = {name: own_floor if name == "kd_runner" else students["floor"] for name in names}
            result["off"] = {name: distance(students[name], references[name]) for name in names}
            result["floors_apart"] = distance(own_floor, students["floor"])
            result["moved"] = distance(students["floor"], student)
    torch.use_deterministic_algorithms(False)
    return result


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| loop | CPU ms/step | x floor | wall ms/step | x floor | off |", "|---|---|---|---|---|---|"]
    for name, rounds in result["ms"].items():
        cells = [name]
        for clock in ("cpu", "wall"):
            ratios = [ours[clock] / base[clock] for ours, base in zip(rounds, result["ms"]["floor"])]
            median = statistics.median(ratios)
            cells += [
                f"{statistics.median(ours[clock] for ours in rounds):.4g}",
                f"**{median:.3f}** ({min(ratios):.3f}-{max(ratios):.3f})",
            ]
        lines.append("| " + " | ".join([*cells, f"{result['off'][name]:.2g}"]) + " |")
    apart = f"The two floors end {result['floors_apart']:.2g} apart; weights moved by up to {result['moved']:.2g}."
    return "\n".join([*lines, "", apart])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each loop in a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write settings, versions and every round's figures here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    torch.manual_seed(0)
    teacher, student = resnet34(num_classes=100), resnet18(num_classes=100)
    batches = [
        {"image": torch.randn(16, 3, 96, 96), "target": torch.randint(100, (16,))} for _ in range(args.steps + 1)
    ]
    result = measure(teacher, student, batches, args.rounds)
    versions = {name: version(name) for name in ("torch", "torchvision", "lightning")}
    setting = {"rounds": args.rounds, "steps": args.steps, "threads": args.threads, "machine": platform.processor()}
    print(", ".join(f"{key} {value}" for key, value in {**setting, **versions}.items()) + "\n\n" + table(result))
    if args.json:
        args.json.write_text(json.dumps({**setting, **versions, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
