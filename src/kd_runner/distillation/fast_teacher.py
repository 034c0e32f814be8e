"""A frozen teacher that computes less: batch normalization folded into the convolutions before it (`teacher.fast`)."""

import copy
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kd_runner.distillation.features import FeatureExtractor

log = logging.getLogger(__name__)

# Largest relative difference of a feature, of its largest value, that rounding may make.
TOLERANCE = 1e-4
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)


@torch.no_grad()
def fold(
    teacher: FeatureExtractor, batch: Mapping[str, Any], names: Iterable[str], student: nn.Module | None = None
) -> FeatureExtractor:
    """The same teacher with every batch normalization folded into the convolution that alone feeds it.

    In eval mode `norm(conv(x))` is one convolution with other weights. Which pairs there are is seen while the teacher
    runs once; a convolution that a feature reads stays as it is. The features of the folded copy are then compared with
    the teacher's own: where one is off by more than `TOLERANCE` (of its largest value), the teacher is returned.

    Args:
        teacher: frozen, in eval mode.
        batch: an example batch.
        names: the features that are read.
        student: a net that may hold modules of the teacher; then nothing is folded, since a copy would be another one.

    Returns:
        A folded copy, or `teacher` itself where nothing can be folded or the features would change.
    """
    if student is not None and _share_parameters(teacher.net, student):
        return teacher
    names = list(names)
    read = {path.partition(":")[0] for path in teacher.features.values()}
    pairs, expected = _pairs(teacher, batch, names)
    pairs = [
        (conv, norm) for conv, norm in pairs if not any(path == conv or path.startswith(conv + ".") for path in read)
    ]
    if not pairs:
        return teacher
    net = copy.deepcopy(teacher.net)
    for conv_path, norm_path in pairs:
        conv: Any = net.get_submodule(conv_path)
        norm: Any = net.get_submodule(norm_path)
        net.set_submodule(conv_path, fuse_conv_bn_eval(conv, norm))
        after = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
        net.set_submodule(norm_path, after)
    folded = copy.copy(teacher)
    folded.net = net.requires_grad_(False).eval()
    off = {name: _difference(expected[name], value) for name, value in folded(batch, names).items()}
    worst = max(off, key=off.__getitem__)
    if not off[worst] <= TOLERANCE:
        log.info("teacher.fast: refused, teacher.features.%s would change by %.1e", worst, off[worst])
        return teacher
    log.info("teacher.fast: %d batch normalizations folded, largest difference %.1e", len(pairs), off[worst])
    return folded


def _share_parameters(first: nn.Module, second: nn.Module) -> bool:
    held = {id(parameter) for parameter in second.parameters()}
    return any(id(parameter) in held for parameter in first.parameters())


def _pairs(
    teacher: FeatureExtractor, batch: Mapping[str, Any], names: list[str]
) -> tuple[list[tuple[str, str]], dict[str, Tensor]]:
    """Paths of (convolution, norm) where the norm's input is the convolution's output, and the features of this run.

    Both ran once, stand in the net once, and have parameters of their own.
    """
    calls: dict[str, list[tuple[Any, Any]]] = {}  # inputs and outputs, held so that no other tensor gets their identity
    paths: dict[nn.Module, list[str]] = {}
    for path, module in teacher.net.named_modules(remove_duplicate=False):
        if type(module) in (*_CONVOLUTIONS, *_NORMS):
            paths.setdefault(module, []).append(path)
    hooks = [
        module.register_forward_hook(
            lambda _, args, output, path=of_module[0]: calls.setdefault(path, []).append((args, output))
        )
        for module, of_module in paths.items()
        if len(of_module) == 1
    ]
    try:
        features = teacher(batch, names)
    finally:
        for hook in hooks:
            hook.remove()
    made_by = {id(run[0][1]): path for path, run in calls.items() if len(run) == 1 and _is_conv(teacher.net, path)}
    pairs = []
    for path, run in calls.items():
        norm = teacher.net.get_submodule(path)
        if len(run) == 1 and isinstance(norm, _NORMS) and norm.running_mean is not None:
            conv = made_by.get(id(run[0][0][0]))
            if conv is not None:
                pairs.append((conv, path))
    fed = [conv for conv, _ in pairs]
    return [(conv, norm) for conv, norm in pairs if fed.count(conv) == 1], features


def _is_conv(net: nn.Module, path: str) -> bool:
    return isinstance(net.get_submodule(path), _CONVOLUTIONS)


def _difference(before: Tensor, after: Tensor) -> float:
    """Largest difference, as a fraction of the largest value; of numbers that are not floating, whether any differs."""
    if before.shape != after.shape:
        return float("inf")
    if not before.is_floating_point():
        return float(not torch.equal(before, after))
    if before.numel() == 0:
        return 0.0
    return float((before - after).abs().max() / before.abs().max().clamp(min=1e-12))
