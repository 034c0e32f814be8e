"""The student before training: weights, modules that it shares with the teacher, pruning."""

import copy
import logging
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.distillation.module import Distiller
from kd_runner.errors import ConfigError, nearest
from kd_runner.profiling.costs import latency
from kd_runner.pruning.plan import Pruning

log = logging.getLogger(__name__)

Arguments = tuple[tuple[Tensor, ...], dict[str, Tensor]]


def copy_weights(student: nn.Module, teacher: nn.Module) -> None:
    """`student.init`: start from the teacher's weights; both have the same shapes.

    Raises:
        ConfigError: they have not.
    """
    try:
        student.load_state_dict(teacher.state_dict())
    except RuntimeError as error:
        raise ConfigError(f"student.init: student.net must equal teacher.net (prune it afterwards): {error}") from error


def share_modules(student: FeatureExtractor, trained: str, teacher: nn.Module | None) -> None:
    """Train one part of the net alone. Everything else is frozen, in eval mode, and the teacher's own modules where a
    teacher is given.

    Args:
        trained: path of the part, e.g. `img_backbone`.
    """
    paths = [name for name, _ in student.net.named_modules() if name]
    if trained not in paths:
        raise ConfigError(f"student.trained: the student has no {trained!r}.{nearest(trained, paths)}")
    ours, theirs = student.net, teacher
    for name in trained.split("."):
        for parameter in ours._parameters.values():
            if parameter is not None:
                parameter.requires_grad_(False)
        for other, child in list(ours.named_children()):
            if other != name:
                if theirs is not None:
                    child = theirs.get_submodule(other)
                    setattr(ours, other, child)
                student.frozen.append(child.requires_grad_(False).eval())
        ours, theirs = ours.get_submodule(name), None if theirs is None else theirs.get_submodule(name)


def prune(student: FeatureExtractor, plan: Pruning, terms: list[LossTerm], data: Any) -> None:
    """Do the rounds that are due before training, and measure what they leave."""
    student.pruned = plan.begin(student.net)
    args, named = student.pruned.arguments = _arguments(student, data.example(1))
    student.pruned.before = student.pruned.cost(student.net)
    if plan.schedule.share(0) > 0:
        whole = copy.deepcopy(student.pruned.part(student.net))
        module = Distiller(student=student, terms=terms)
        module.build_losses(data.example())
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        module.eval().to(device)
        batches = (module.transfer_batch_to_device(b, device, 0) for b in data.calibration(plan.num_batches))
        student.pruned = plan.round(student.net, student.pruned, 0, module.task_loss, batches)
        module.cpu()
        student.pruned.after = student.pruned.cost(student.net)
        parts = {"before": whole, "after": student.pruned.part(student.net)}
        for name, milliseconds in _milliseconds(parts, args, named).items():
            getattr(student.pruned, name)["milliseconds"] = round(milliseconds, 2)
        log.info("pruned %s of the student\n%s", plan.module or "all", student.pruned.table)


@torch.no_grad()
def _arguments(student: FeatureExtractor, batch: dict[str, Tensor]) -> Arguments:
    """What the pruned part is called with."""
    assert student.pruned is not None
    found: list[Arguments] = []
    part = student.pruned.part(student.net)
    hook = part.register_forward_pre_hook(lambda _, args, named: found.append((args, named)), with_kwargs=True)
    student.net.eval()
    student(batch, [])
    hook.remove()
    return found[0]


def _milliseconds(parts: dict[str, nn.Module], args: tuple[Tensor, ...], named: dict[str, Tensor]) -> dict[str, float]:
    def call(part: nn.Module) -> Any:
        with torch.inference_mode():
            return part.eval()(*args, **named)

    started = time.perf_counter()
    call(parts["before"])
    rounds = 10 if time.perf_counter() - started < 1 else 1  # a full-size backbone takes a minute on a CPU
    return latency({name: partial(call, part) for name, part in parts.items()}, rounds=rounds, warmup=1)
