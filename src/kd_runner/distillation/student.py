"""The student before training: initial weights, modules shared with the teacher, pruning."""

import copy
import logging
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kd_runner.distillation.checkpoints import load
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.distillation.module import Distiller
from kd_runner.errors import ConfigError, find_module
from kd_runner.profiling.costs import latency
from kd_runner.pruning import spec as specs
from kd_runner.pruning.plan import Arguments, Pruning
from kd_runner.pruning.pruned import Pruned
from kd_runner.pruning.spec import Spec

log = logging.getLogger(__name__)


def copy_weights(student: nn.Module, teacher: nn.Module) -> None:
    """`student.init`: start from the teacher's weights.

    Args:
        student: filled in place.
        teacher: of the same architecture.

    Raises:
        ConfigError: the nets differ in names or shapes.
    """
    try:
        student.load_state_dict(teacher.state_dict())
    except RuntimeError as error:
        raise ConfigError(f"student.init: student.net must equal teacher.net (prune it afterwards): {error}") from error


def load_part(student: nn.Module, teacher: nn.Module, *, part: str, file: str) -> None:
    """`student.init`: start one part of the net, its encoder say, from weights of another task.

    Args:
        student: filled in place.
        teacher: not used.
        part: path of the part, e.g. `features`.
        file: a whole net's weights, or the part's by their names within the net.

    Raises:
        ConfigError: the part does not exist, or names or shapes differ.
    """
    module = find_module(student, part, "student.init.part: the student")
    coverage = load(module, file, key="student.init.file", strip=f"{part}.")
    if coverage.missing or coverage.wrong_shape:
        raise ConfigError(f"student.init.file: {file} does not fit {part} of student.net: {coverage}")


def share_modules(student: FeatureExtractor, trained: str, teacher: nn.Module | None) -> None:
    """Train one part of the net alone.

    Everything else is frozen, in eval mode, and the teacher's own modules where a teacher is given.

    Args:
        student: changed in place.
        trained: path of the part, e.g. `img_backbone`.
        teacher: of the same architecture outside of the part, or None.
    """
    find_module(student.net, trained, "student.trained: the student")
    module, source = student.net, teacher
    for name in trained.split("."):
        for parameter in module._parameters.values():
            if parameter is not None:
                parameter.requires_grad_(False)
        for other, child in list(module.named_children()):
            if other != name:
                if source is not None:
                    child = source.get_submodule(other)
                    setattr(module, other, child)
                student.frozen.append(child.requires_grad_(False).eval())
        module, source = module.get_submodule(name), None if source is None else source.get_submodule(name)


def prune(
    student: FeatureExtractor, plan: Pruning, terms: list[LossTerm], data: Any, resumed: Spec | None = None
) -> None:
    """Do the rounds that are due before training, and measure the result.

    Args:
        student: pruned in place.
        plan: what to prune, by which score, how far and when.
        terms: losses of the run; those that read no teacher score the units. Features keep their width where a loss
            reads them that makes no projection of its own (`LossTerm.build`).
        data: the data module.
        resumed: what the checkpoint of a resumed run has kept: the student takes those widths, nothing is scored.

    Raises:
        ConfigError: the plan does not fit the net.
    """
    try:
        _prune(student, plan, terms, data, resumed)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"pruning: {error}") from error


def _prune(student: FeatureExtractor, plan: Pruning, terms: list[LossTerm], data: Any, resumed: Spec | None) -> None:
    args, named = arguments = _arguments(student, plan.part(student.net), data.example(1))
    if resumed is not None:
        part = plan.part(student.net)
        student.pruned = Pruned(plan.module, specs.whole(part, resumed["layout"]), arguments)
        student.pruned.before = student.pruned.cost(student.net)
        specs.reshape(part, student.pruned.spec, resumed)
        student.pruned.spec = resumed
        student.pruned.after = student.pruned.cost(student.net)
        return
    student.pruned = plan.unpruned(student.net, arguments, _fixed_features(student, terms))
    student.pruned.before = student.pruned.cost(student.net)
    if plan.schedule.fraction(0) > 0:
        whole = copy.deepcopy(student.pruned.part(student.net))
        module = Distiller(student=student, terms=[term for term in terms if not term.uses_teacher])
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


def _fixed_features(student: FeatureExtractor, terms: list[LossTerm]) -> list[str]:
    """Paths of the student's features that a term reads as they are."""
    specs = [term.inputs for term in terms if not hasattr(term.fn, "build")]
    names = {name for spec in specs for name in spec.required_features("student")}
    return [path for name, path in student.features.items() if name in names]


@torch.no_grad()
def _arguments(student: FeatureExtractor, part: nn.Module, batch: dict[str, Tensor]) -> Arguments:
    """What a part of the net is called with for one sample."""
    calls: list[Arguments] = []
    hook = part.register_forward_pre_hook(lambda _, args, named: calls.append((args, named)), with_kwargs=True)
    student.net.eval()
    try:
        student.net(**student.one_sample(batch))
    finally:
        hook.remove()
    if not calls:
        raise ConfigError("pruning.module: the part is not called in the forward pass")
    return calls[0]


def _milliseconds(parts: dict[str, nn.Module], args: tuple[Tensor, ...], named: dict[str, Tensor]) -> dict[str, float]:
    def call(part: nn.Module) -> Any:
        with torch.inference_mode():
            return part.eval()(*args, **named)

    started = time.perf_counter()
    call(parts["before"])
    rounds = 10 if time.perf_counter() - started < 1 else 1  # a full-size backbone takes a minute on a CPU
    return latency({name: partial(call, part) for name, part in parts.items()}, rounds=rounds, warmup=1)
