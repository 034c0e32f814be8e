"""What the distillation methods cost, and torchdistill's beside them: value and gradient alone, then whole steps.

    GOMP_SPINCOUNT=0 OMP_WAIT_POLICY=PASSIVE .venv/bin/python benchmarks/losses.py --rounds 15 --steps 5

First table: one call with its backward pass, on features as ResNets give them for images of 32 px: maps (16, 64, 32,
32), (16, 128, 16, 16), (16, 256, 8, 8), pooled vectors (128, 256), logits (256, 100). Milliseconds of CPU time of the
process, median of the rounds; CRD with 5,000 rows and K = 1,024. "x torchdistill" is the median of the ratios of the
same round to torchdistill 1.1.5 on the same tensors, in an order that rotates: at most 1.0 is demanded. "difference"
is the largest one of value (relative) and gradient (relative to its largest element). SPKDLoss of torchdistill
divides rows by their sum of magnitudes, which is not the paper's norm: its values differ. ReviewKD is compared on its
hierarchical context alone: the layers before it are the same.

Second table (--steps above 0): optimizer steps of a ResNet18 that learns from a ResNet18, 64 px, batch 16:
kd_runner's Distiller under the project's Trainer (conf/trainer/cpu.yaml, no loggers) over torchdistill's
DistillationBox, with cross entropy and the method. Differences under about 5 % are noise. Needs `pip install
kd-runner[benchmark]`.
"""

import argparse
import contextlib
import copy
import io
import json
import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from step import CONF, Clock  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchdistill.core.distillation import DistillationBox
from torchdistill.losses import mid_level
from torchvision.models import resnet18

from kd_runner.config import build
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.distillation.module import Distiller
from kd_runner.losses.attention_transfer import AttentionTransfer
from kd_runner.losses.cirkd import CrossImageRelations
from kd_runner.losses.cirkd_memory import QueueRelations
from kd_runner.losses.cosine_features import CosineFeatures
from kd_runner.losses.crd import CRD
from kd_runner.losses.cwd import CWD
from kd_runner.losses.dist import DIST
from kd_runner.losses.dkd import DKD
from kd_runner.losses.hint import Hint
from kd_runner.losses.kl_logits import KLLogits
from kd_runner.losses.lskd import StandardizedKL
from kd_runner.losses.mgd import MGD
from kd_runner.losses.multi_teacher import MultiTeacher
from kd_runner.losses.pkd import PKD
from kd_runner.losses.pkt import PKT
from kd_runner.losses.review_kd import ReviewKD, hierarchical_context
from kd_runner.losses.rkd import RKD
from kd_runner.losses.similarity_preserving import SimilarityPreserving
from kd_runner.losses.task_ce import CrossEntropy
from kd_runner.losses.vid import VID
from kd_runner.runtime.run_folder import RunFolder

CLASSES = 100
SHAPES = {"low": (16, 64, 32, 32), "mid": (16, 128, 16, 16), "high": (16, 256, 8, 8)}
SHAPES |= {"pooled": (128, 256), "logits": (256, CLASSES)}
MODULE = {"student_module_path": "x", "student_module_io": "output", "teacher_module_path": "x"}
MODULE |= {"teacher_module_io": "output"}
PATHS = {"student_output_path": "x", "teacher_output_path": "x"}
PAIR = {"one": {"student": {"path": "x", "io": "output"}, "teacher": {"path": "x", "io": "output"}}}
# With these weights its KDLoss and LogitStdKDLoss keep T^2 and leave the labels out.
SOFT = {"alpha": 1e-30, "beta": 1.0}

# Method: (our loss, the features it reads).
METHODS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "kl_logits": (lambda: KLLogits(4.0), ["logits"]),
    "lskd": (StandardizedKL, ["logits"]),
    "dkd": (DKD, ["logits"]),
    "dist": (DIST, ["logits"]),
    "hint": (Hint, ["mid"]),
    "cosine_features": (CosineFeatures, ["low", "mid", "high"]),
    "attention_transfer": (AttentionTransfer, ["mid"]),
    "similarity_preserving": (SimilarityPreserving, ["high"]),
    "rkd": (RKD, ["pooled"]),
    "pkt": (PKT, ["pooled"]),
    "vid": (VID, ["mid"]),
    "pkd": (PKD, ["mid"]),
    "cwd": (CWD, ["mid"]),
    "mgd": (MGD, ["high"]),
    "review_kd": (ReviewKD, ["low", "mid", "high"]),
    "crd": (lambda: CRD(n_data=5000, num_negatives=1024), ["pooled"]),
    "cirkd": (CrossImageRelations, ["high"]),
    "cirkd_memory": (lambda: QueueRelations(CLASSES, 200, 100, 42, 11), ["high"]),
    "multi_teacher": (MultiTeacher, ["high"]),
}
# The same of torchdistill, and where not the whole loss is compared, what of ours is.
PEERS: dict[str, tuple[Any, Callable[..., Any] | None]] = {
    "kl_logits": (mid_level.KDLoss(temperature=4.0, **SOFT, **MODULE), None),
    "lskd": (mid_level.LogitStdKDLoss(temperature=2.0, **SOFT, **MODULE), None),
    "dist": (mid_level.DISTLoss(**MODULE), None),
    "attention_transfer": (mid_level.ATLoss(PAIR), None),
    "similarity_preserving": (mid_level.SPKDLoss(**PATHS, reduction="batchmean"), None),
    "rkd": (mid_level.RKDLoss(**PATHS, dist_factor=25.0, angle_factor=50.0, reduction="mean"), None),
    "pkt": (mid_level.PKTLoss(**MODULE), None),
    "review_kd": (mid_level.HierarchicalContextLoss(**MODULE), hierarchical_context),
}
STEPS = [name for name in PEERS if name not in ("review_kd", "pkt")]  # those that take what a hook on the net gives


def tensors(names: list[str], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPES[name], generator=generator) for name in names]


def own_call(name: str) -> tuple[Callable[..., Tensor], list[Tensor], list[Tensor]]:
    """Our loss as a function of lists of features, and such features of student and teacher."""
    build_loss, names = METHODS[name]
    student, teacher = tensors(names, 1), tensors(names, 2)
    loss, several = build_loss(), len(names) > 1
    more = {"dkd": {"target": torch.arange(256) % CLASSES}, "crd": {"index": torch.arange(128)}}.get(name, {})
    if name == "cirkd_memory":
        more = {"target": torch.randint(CLASSES, (16, 8, 8))}

    def call(function: Callable[..., Any], own: list[Tensor]) -> Any:
        if name == "multi_teacher":
            return function(own[0], [teacher[0], teacher[0].flip(1)])
        if name == "cosine_features" or several:
            return function(own, teacher, **more)
        return function(own[0], teacher[0], **more)

    if hasattr(loss, "build"):
        call(loss.build, student)
    return lambda own: call(loss, own), student, teacher


def timed(function: Callable[[], Tensor]) -> float:
    start = time.process_time()
    function().backward()
    return 1e3 * (time.process_time() - start)


def compared(name: str) -> tuple[Callable[[], Tensor], Callable[[], Tensor], Tensor, Tensor]:
    """Both losses as calls without arguments, on the same values, and the leaves that take the gradients."""
    peer, part = PEERS[name]
    feature = "mid" if name == "review_kd" else METHODS[name][1][0]
    own, teacher = tensors([feature], 1)[0], tensors([feature], 2)[0]
    one, two = own.clone().requires_grad_(), own.clone().requires_grad_()
    loss = part or METHODS[name][0]()
    target = torch.zeros(len(own), dtype=torch.int64)
    student_io = {"x": {"output": (two, None) if name == "review_kd" else two}}

    def peer_call() -> Tensor:
        return peer(student_io, {"x": {"output": teacher}}, target)

    return lambda: loss(one, teacher), peer_call, one, two


def alone(rounds: int, names: list[str]) -> dict[str, dict[str, Any]]:
    """Cost of every method; of those that torchdistill has, the ratio and the difference."""
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        call, student, _ = own_call(name)
        leaves = [t.requires_grad_() for t in student]
        for _ in range(2):
            call(leaves).backward()
        results[name] = {"ms": [timed(partial(call, leaves)) for _ in range(rounds)]}
        if name in PEERS:
            own, peer, one, two = compared(name)
            values = own(), peer()
            for value in values:
                value.backward()
            gradient = float((one.grad - two.grad).abs().max() / two.grad.abs().max())  # type: ignore[operator, union-attr]
            value = abs(float(values[0].detach() / values[1].detach()) - 1)
            ratios = []
            for turn in range(rounds):
                order = [own, peer] if turn % 2 else [peer, own]
                ms = {function: timed(function) for function in order}
                ratios.append(ms[own] / ms[peer])
            results[name] |= {"ratios": ratios, "difference": max(value, gradient)}
    return results


def kd_runner_step(name: str, teacher: nn.Module, student: nn.Module, batches: DataLoader[Any], clock: Clock) -> None:
    from omegaconf import OmegaConf

    features = {"logits": ":", "mid": "layer2", "high": "layer3", "pooled": "avgpool"}
    own, other = (FeatureExtractor(net, {"x": "image"}, features, "net") for net in (student, teacher))
    build_loss, (feature,) = METHODS[name]
    loss = build_loss()
    inputs = {"student": f"student.{feature}", "teacher": f"teacher.{feature}"}
    terms = [
        LossTerm("task_ce", CrossEntropy(), {"logits": "student.logits", "target": "batch.target"}),
        LossTerm(name, loss, inputs),
    ]
    settings = OmegaConf.create({"trainer": OmegaConf.load(CONF / "trainer/cpu.yaml"), "logger": None, "callbacks": {}})
    settings.trainer.update(max_epochs=1, enable_checkpointing=False)
    import tempfile

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = build.trainer(settings, RunFolder(folder))
        trainer.fit(Distiller(own, other, terms, optimizer=clock.sgd), batches)


def torchdistill_step(
    name: str, teacher: nn.Module, student: nn.Module, batches: DataLoader[Any], clock: Clock
) -> None:
    path = {"logits": ".", "mid": "layer2", "high": "layer3", "pooled": "avgpool"}[METHODS[name][1][0]]
    module = {key: path if key.endswith("path") else value for key, value in MODULE.items()}
    paths = dict.fromkeys(PATHS, path)
    pair = {"one": {role: {"path": path, "io": "output"} for role in ("student", "teacher")}}
    key, kwargs = {
        "kl_logits": ("KDLoss", {**module, "temperature": 4.0, **SOFT}),
        "lskd": ("LogitStdKDLoss", {**module, "temperature": 2.0, **SOFT}),
        "dist": ("DISTLoss", module),
        "attention_transfer": ("ATLoss", {"at_pairs": pair}),
        "similarity_preserving": ("SPKDLoss", {**paths, "reduction": "batchmean"}),
        "rkd": ("RKDLoss", {**paths, "dist_factor": 25.0, "angle_factor": 50.0, "reduction": "mean"}),
    }[name]
    forward = {"forward_proc": "forward_batch_only"}
    hooks = {} if path == "." else {"forward_hook": {"input": [], "output": [path]}}
    ce_path = {"module_path": ".", "io": "output"}
    wrapper = {"input": {"is_from_teacher": False, **ce_path}, "target": {"uses_label": True}}
    ce = {
        "criterion": {"key": "CrossEntropyLoss", "kwargs": {}},
        "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": wrapper},
        "weight": 1.0,
    }
    terms = {"ce": ce, "kd": {"criterion": {"key": key, "kwargs": kwargs}, "weight": 1.0}}
    config = {
        "num_epochs": 1,
        "teacher": {"requires_grad": False, **forward, **hooks},
        "student": {**forward, **hooks},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.001, "momentum": 0.9}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
    }
    box = DistillationBox(teacher, student, {}, config, torch.device("cpu"), None, False, 1)
    clock.watch(box.optimizer)
    box.pre_epoch_process(epoch=0)
    for batch in batches:
        box.post_forward_process(loss=box.forward_process(batch["image"], batch["target"], {}))


def whole_steps(rounds: int, steps: int) -> dict[str, list[float]]:
    """Method to the ratio of our step's CPU time to torchdistill's, of every round."""
    torch.manual_seed(0)
    teacher, student = resnet18(num_classes=CLASSES).eval(), resnet18(num_classes=CLASSES)
    batches = [
        {"image": torch.randn(16, 3, 64, 64), "target": torch.randint(CLASSES, (16,)), "index": torch.arange(16)}
        for _ in range(steps + 1)
    ]
    ratios: dict[str, list[float]] = {name: [] for name in STEPS}
    for turn in range(rounds):
        for name in STEPS:
            ms = {}
            loops = [kd_runner_step, torchdistill_step]
            for loop in loops if turn % 2 else loops[::-1]:
                clock = Clock()
                loop(
                    name,
                    copy.deepcopy(teacher),
                    copy.deepcopy(student).train(),
                    DataLoader(batches, batch_size=None),
                    clock,
                )  # type: ignore[arg-type]
                torch.use_deterministic_algorithms(False)
                ms[loop] = clock[-1][0] - clock[0][0]
            ratios[name].append(ms[kd_runner_step] / ms[torchdistill_step])
    return ratios


def spread(values: list[float]) -> str:
    return f"**{median(values):.3f}** ({min(values):.3f}-{max(values):.3f})"


def table(results: dict[str, dict[str, Any]], steps: dict[str, list[float]]) -> str:
    lines = ["| method | ms | x torchdistill | difference |", "|---|---:|---:|---:|"]
    for name, result in results.items():
        peer = (spread(result["ratios"]), f"{result['difference']:.1e}") if "ratios" in result else ("–", "–")
        lines.append(f"| {name} | {median(result['ms']):.2f} | {peer[0]} | {peer[1]} |")
    if steps:
        lines += ["", "| step with | x torchdistill |", "|---|---:|"]
        lines += [f"| {name} | {spread(ratios)} |" for name, ratios in steps.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=0, help="timed steps of each loop in one of three rounds")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--json", type=Path, help="write the figures of every round")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("torchdistill").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    results = alone(args.rounds, args.methods)
    steps = whole_steps(3, args.steps) if args.steps else {}
    print(table(results, steps))
    if args.json:
        args.json.write_text(json.dumps({"alone": results, "steps": steps}, indent=2) + "\n")


if __name__ == "__main__":
    main()
