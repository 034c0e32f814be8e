"""What kd_runner's loop costs per step, over a hand-written one: ResNet34 teacher, ResNet18 student, 96 px, on CPU.

    GOMP_SPINCOUNT=0 OMP_WAIT_POLICY=PASSIVE .venv/bin/python benchmarks/step.py --rounds 7 --steps 10 --json step.json

Loops, all with the same nets, batches and loss (cross entropy and KL at T=4; fp32, batch 16, SGD with momentum):
- floor: teacher in inference mode, student forward, backward, step; nothing else.
- kd_runner: Distiller under the project's Trainer (conf/trainer/cpu.yaml) with TensorBoard and epoch line, no bar.
- kd_runner, fast teacher: the same with `teacher.fast` (batch norm folded) and channels_last for both nets.
- kd_runner, cached logits: the same with the teacher's outputs on disk (kd.teacher_cache), filled beforehand.
- torchdistill 1.1.5: its DistillationBox, without its meters. Needs `pip install kd-runner[benchmark]`.

How to read it. A round runs every loop once, from the same student, in an order that rotates; a loop's first step is
dropped. "x floor" is the median of the ratios to the floor of the same round (in brackets: smallest to largest); of
kd_runner at most 1.05 is demanded, with the fast teacher at most 0.90, with cached logits at most 0.70. CPU time is the
process's, all threads: the one to trust on a shared machine, with --threads 1. Differences under about 5 % (CPU time)
and 3 % (wall, quiet machine) are noise; more rounds help.
"off" is the largest absolute difference of a weight or batch-norm statistic from the floor's student after the first
round: 0 is the same work bit for bit. kd_runner's losses round otherwise than torch's, so its reference is a second
floor that calls them (the fast teacher rounds otherwise, too); the last line tells how far apart the two floors end,
and how far the first one moved.
"""

import argparse
import contextlib
import copy
import gc
import io
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18, resnet34

from kd_runner.config import build
from kd_runner.distillation.fast_teacher import fold
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.distillation.module import Distiller
from kd_runner.distillation.teacher_cache import identity
from kd_runner.distillation.teacher_cache.recorded import RecordedTeacher
from kd_runner.losses.kl_logits import KLLogits
from kd_runner.losses.task_ce import CrossEntropy
from kd_runner.runtime.run_folder import RunFolder

CONF = Path(__file__).resolve().parents[1] / "conf"
TEMPERATURE, ALPHA = 4.0, 0.9
SGD = {"lr": 0.001, "momentum": 0.9}


class Clock(list[tuple[float, float]]):
    """CPU and wall time after every optimizer step: from one reading to the next is one full turn of any loop."""

    def watch(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        optimizer.register_step_post_hook(lambda *_: self.append((time.process_time(), time.perf_counter())))
        return optimizer

    def sgd(self, params: Any) -> torch.optim.Optimizer:
        return self.watch(torch.optim.SGD(params, **SGD))


def torch_loss(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    log_student, soft_teacher = F.log_softmax(student / TEMPERATURE, 1), F.softmax(teacher / TEMPERATURE, 1)
    kl = F.kl_div(log_student, soft_teacher, reduction="batchmean")
    return ALPHA * TEMPERATURE**2 * kl + (1 - ALPHA) * F.cross_entropy(student, target)


def own_loss(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    return ALPHA * KLLogits(TEMPERATURE)(student, teacher) + (1 - ALPHA) * CrossEntropy()(student, target)


def floor(teacher: nn.Module, student: nn.Module, batches: DataLoader, clock: Clock, loss_fn=torch_loss) -> None:
    optimizer = clock.sgd(student.parameters())
    for batch in batches:
        with torch.inference_mode():
            soft = teacher(batch["image"])
        loss = loss_fn(student(batch["image"]), soft, batch["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def kd_runner(
    teacher: nn.Module, student: nn.Module, batches: DataLoader, clock: Clock, cache: Path | None = None
) -> None:
    own_student, own_teacher = (
        FeatureExtractor(net, {"x": "image"}, {"logits": ":"}, "net") for net in (student, teacher)
    )
    terms = [
        LossTerm("task_ce", CrossEntropy(), {"logits": "student.logits", "target": "batch.target"}),
        LossTerm("kl_logits", KLLogits(TEMPERATURE), {"student": "student.logits", "teacher": "teacher.logits"}),
    ]
    files = {"trainer": "trainer/cpu", "logger": "logger/tensorboard", "callbacks": "callbacks/epoch_summary"}
    settings = OmegaConf.create({key: OmegaConf.load(CONF / f"{file}.yaml") for key, file in files.items()})
    settings.monitor = "miou"
    settings.trainer.update(max_epochs=1, enable_checkpointing=False)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # no terminal, no bar
        trainer = build.trainer(settings, RunFolder(folder))
        module = Distiller(own_student, own_teacher, terms, optimizer=clock.sgd, alpha=ALPHA)
        if cache is not None:
            module.recorded_teacher = recorded(own_teacher, batches, cache)
        trainer.fit(module, batches)


def fast_teacher(teacher: nn.Module, student: nn.Module, batches: DataLoader, clock: Clock) -> None:
    extractor = FeatureExtractor(teacher, {"x": "image"}, {"logits": ":"}, "net")
    nets = fold(extractor, next(iter(batches)), ["logits"]).net, student
    for net in nets:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kd_runner(*nets, batches, clock)


def cached_logits(teacher: nn.Module, student: nn.Module, batches: DataLoader, clock: Clock) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kd_runner(teacher, student, batches, clock, Path(folder))


@torch.no_grad()
def recorded(teacher: FeatureExtractor, batches: DataLoader, folder: Path) -> RecordedTeacher:
    """A teacher that has seen every sample."""
    samples = sum(len(batch["index"]) for batch in batches)
    settings = {"weights": identity.weights(teacher.net)}
    for _ in range(2):  # filled by one process, as it were, and read by another
        made = RecordedTeacher(teacher, ["logits"], folder, settings, state={}, num_samples=samples)
        for batch in batches:
            made(batch, ["logits"])
    return made


def torchdistill(teacher: nn.Module, student: nn.Module, batches: DataLoader, clock: Clock) -> None:
    logits = {"student_module_path": ".", "student_module_io": "output"}
    logits |= {"teacher_module_path": ".", "teacher_module_io": "output"}
    # Its alpha weighs the labels, 1 - alpha the teacher.
    loss = {"key": "KDLoss", "kwargs": {**logits, "temperature": TEMPERATURE, "alpha": 1 - ALPHA}}
    config = {
        "num_epochs": 1,
        "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "SGD", "kwargs": dict(SGD)},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}}},
    }
    box = DistillationBox(teacher, student, {}, config, torch.device("cpu"), None, False, 1)
    clock.watch(box.optimizer)
    box.pre_epoch_process(epoch=0)
    for batch in batches:
        box.post_forward_process(loss=box.forward_process(batch["image"], batch["target"], {}))


LOOPS: dict[str, Callable[..., None]] = {
    "floor": floor,
    "kd_runner": kd_runner,
    "kd_runner, fast teacher": fast_teacher,
    "kd_runner, cached logits": cached_logits,
}
with contextlib.suppress(ImportError):
    from torchdistill.core.distillation import DistillationBox

    LOOPS["torchdistill"] = torchdistill


def distance(first: nn.Module, second: nn.Module) -> float:
    """Largest absolute difference of any weight or batch-norm statistic."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs if a.is_floating_point())


def measure(teacher: nn.Module, student: nn.Module, batches: list[dict[str, Tensor]], rounds: int) -> dict[str, Any]:
    """Milliseconds per step by loop and round; after the first round, how far the students are off."""

    def train(loop: Callable[..., None], **more: Any) -> tuple[nn.Module, dict[str, float]]:
        # torchdistill leaves the teacher's mode as it is, so everybody gets one in eval mode.
        fixed, trained, clock = copy.deepcopy(teacher).eval(), copy.deepcopy(student).train(), Clock()
        gc.collect()
        loop(fixed, trained, DataLoader(batches, batch_size=None), clock, **more)  # type: ignore[arg-type]
        torch.use_deterministic_algorithms(False)  # kd_runner's Trainer sets it, for the whole process
        if moved := distance(fixed, teacher):
            raise RuntimeError(f"{loop.__name__} moved its teacher by {moved}")
        cpu, wall = (1e3 * (last - first) / (len(clock) - 1) for first, last in zip(clock[0], clock[-1]))
        return trained, {"cpu": cpu, "wall": wall}

    names, students = list(LOOPS), {}
    result: dict[str, Any] = {"ms": {name: [] for name in names}}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            students[name], ms = train(LOOPS[name])
            result["ms"][name].append(ms)
        if turn == 0:
            own, first = train(floor, loss_fn=own_loss)[0], students["floor"]
            result["off"] = {
                name: distance(students[name], own if name.startswith("kd_runner") else first) for name in names
            }
            result |= {"floors_apart": distance(own, first), "moved": distance(first, student)}
    return result


def table(result: dict[str, Any]) -> str:
    lines = ["| loop | CPU ms/step | x floor | wall ms/step | x floor | off |", "|---|---|---|---|---|---|"]
    for name, rounds in result["ms"].items():
        line = f"| {name} "
        for clock in ("cpu", "wall"):
            ratios = [own[clock] / base[clock] for own, base in zip(rounds, result["ms"]["floor"])]
            line += f"| {median(own[clock] for own in rounds):.4g} "
            line += f"| **{median(ratios):.3f}** ({min(ratios):.3f}-{max(ratios):.3f}) "
        lines.append(f"{line}| {result['off'][name]:.2g} |")
    return "\n".join(lines) + f"\n\nFloors {result['floors_apart']:.2g} apart; moved by {result['moved']:.2g}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each loop in a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write settings, versions and the figures of every round")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    teacher, student = resnet34(num_classes=100), resnet18(num_classes=100)
    images, targets = torch.randn(args.steps + 1, 16, 3, 96, 96), torch.randint(100, (args.steps + 1, 16))
    index = torch.arange(len(images) * 16).view(-1, 16)
    batches = [{"image": x, "target": y, "index": i} for x, y, i in zip(images, targets, index)]
    result = measure(teacher, student, batches, args.rounds)
    setting = {"rounds": args.rounds, "steps": args.steps, "threads": args.threads}
    setting |= {name: version(name) for name in ("torch", "torchvision", "lightning")}
    print(", ".join(f"{key} {value}" for key, value in setting.items()), table(result), sep="\n\n")
    if args.json:
        args.json.write_text(json.dumps(setting | result, indent=2) + "\n")


if __name__ == "__main__":
    main()
