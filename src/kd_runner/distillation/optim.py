"""Parameter groups of the optimizer, and the schedule of the learning rate."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kd_runner.errors import ConfigError, find_module


def parameter_groups(
    modules: Iterable[nn.Module], factors: Mapping[nn.Parameter, float] | None = None
) -> list[dict[str, Any]]:
    """Groups of trainable parameters for an optimizer: weights decay, vectors (biases, normalization) do not.

    Args:
        modules: whose parameters are trained.
        factors: parameter to the factor of its learning rate, 1 where it has none; None for one rate.

    Returns:
        One group of weights, with the optimizer's own weight decay, and one of vectors, with none; with `factors` two
        such groups a factor, the highest first, empty ones left out; `lr_factor` in a group says which (`scale_rates`).
    """
    trainable = [p for module in modules for p in module.parameters() if p.requires_grad]
    if factors is None:
        return _split(trainable)
    of_factor: dict[float, list[nn.Parameter]] = {}
    for parameter in trainable:
        of_factor.setdefault(factors.get(parameter, 1.0), []).append(parameter)
    groups = [{**group, "lr_factor": f} for f in sorted(of_factor, reverse=True) for group in _split(of_factor[f])]
    return [group for group in groups if group["params"]]


def _split(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def layer_factors(net: nn.Module, blocks: str | Sequence[str], decay: float, module: str = "") -> dict[Any, float]:
    """Layer-wise decay of the learning rate (Clark et al. 2020, ELECTRA; as in BEiT): parameter to its factor.

    Block i of n, counted from 0, has decay^(n - i); what `module` registers ahead of its first block (patch embedding,
    positions) decay^(n + 1); all else, outside of `module` or behind its blocks, 1. Takes a pruned net as it is.

    Args:
        net: the student.
        blocks: path in `module` of the container whose children are the blocks, or of each block, in order.
        decay: factor from one block to the one before, in (0, 1]; ORION: 0.9.
        module: path of the backbone in `net`; empty for the net itself.

    Returns:
        Parameter to its factor.

    Raises:
        ConfigError: a path that names nothing, a container without blocks, a decay out of range.
    """
    if not 0 < decay <= 1:
        raise ConfigError(f"layer_decay.decay must lie in (0, 1], not {decay}")
    backbone = find_module(net, module, "layer_decay.module: the student")
    if isinstance(blocks, str):
        layers = list(find_module(backbone, blocks, "layer_decay.blocks: the module").children())
    else:
        layers = [find_module(backbone, path, "layer_decay.blocks: the module") for path in blocks]
    if not layers:
        raise ConfigError(f"layer_decay.blocks: {blocks!r} holds no blocks")
    of_block = {p: decay ** (len(layers) - i) for i, layer in enumerate(layers) for p in layer.parameters()}
    factors: dict[Any, float] = {}
    for parameter in backbone.parameters():
        if parameter in of_block:
            break
        factors[parameter] = decay ** (len(layers) + 1)
    return factors | of_block


def scale_rates(optimizer: Optimizer) -> Optimizer:
    """Multiply the learning rate of each group by its `lr_factor`; to be called once, before any schedule is made.

    Args:
        optimizer: with groups of `parameter_groups`.

    Returns:
        The same optimizer.
    """
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_factor", 1.0)
    return optimizer


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final_factor: float = 0.0) -> LambdaLR:
    """Linear warm-up from 0, then half a cosine down to a fraction of the learning rate.

    Args:
        optimizer: its learning rates are the highest ones.
        total_steps: optimizer steps of the whole run.
        warmup_steps: steps of the linear part; at most a tenth of a shorter run.
        final_factor: fraction of the learning rate that the last step has.

    Returns:
        The schedule, to be advanced after each step.

    Source:
        Loshchilov & Hutter 2017, SGDR, equation 5, without restarts.
    """
    warmup = min(warmup_steps, total_steps // 10)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(1, total_steps - warmup)
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return LambdaLR(optimizer, factor)


def multistep(
    optimizer: Optimizer, total_steps: int, epochs: int, milestones: Sequence[float], factor: float = 0.1
) -> LambdaLR:
    """A learning rate that is multiplied by `factor` at the end of each of some epochs.

    Args:
        optimizer: its learning rates are the first ones.
        total_steps: optimizer steps of the whole run.
        epochs: epochs of the whole run.
        milestones: epochs, in rising order.
        factor: what the rate is multiplied by.

    Returns:
        The schedule, to be advanced after each step.

    Raises:
        ValueError: the milestones do not rise.
    """
    if list(milestones) != sorted(set(milestones)) or (milestones and milestones[0] <= 0):
        raise ValueError(f"milestones={list(milestones)}: epochs above 0 in rising order")
    steps = [round(milestone * total_steps / epochs) for milestone in milestones]
    return LambdaLR(optimizer, lambda step: factor ** sum(step >= reached for reached in steps))
