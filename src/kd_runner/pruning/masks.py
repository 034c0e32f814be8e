"""Run a net with a factor on each head, hidden unit and channel, without changing it.

A factor multiplies what the unit passes on, and weighs it in the statistics of a LayerNorm over the units:
mean = sum(m x) / sum(m), var = sum(m (x - mean)^2) / sum(m). With factors 1 that is the net itself; with 0 and 1 it is
exactly the pruned net, whose norm no longer sees the removed units (zeroing their outputs alone would be another
function); in between it is smooth, so d loss / d m says what removing a unit does, the norm's shift included.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from kd_runner.pruning.layout import Layout, find_units


@contextmanager
def masked(net: nn.Module, layout: Layout | Mapping, masks: Mapping[str, Mapping[str, Tensor]]) -> Iterator[None]:
    """Context manager in which `net` runs with a factor on each unit. Gradients reach the factors.

    Args:
        net: the net; hooks are added, and removed at the end.
        layout: where its heads and hidden units are.
        masks: `masks[kind][block]`, factors `(units,)`.

    Yields:
        Nothing.
    """
    hooks = []
    try:
        for kind, of_blocks in masks.items():
            units = find_units(net, layout, kind)
            for block, mask in of_blocks.items():
                unit = units[block]
                for reader in unit.readers:
                    hooks.append(reader.module.register_forward_pre_hook(_scale(reader.factors(mask), reader.axis)))
                for norm in unit.norms:
                    hooks.append(norm.module.register_forward_hook(_norm(norm.factors(mask), norm.axis)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _scale(factor: Tensor, axis: int):
    def scale(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        # A convolution's input may lack the batch dimension, so channels are counted from the end.
        after = 0 if axis == -1 else len(module.kernel_size)  # type: ignore[arg-type]
        return ((args[0] * factor.view(-1, *[1] * after)).to(args[0].dtype),)

    return scale


def _norm(factor: Tensor, axis: int):
    def norm(module: nn.LayerNorm, args: tuple[Tensor], output: Tensor) -> Tensor:
        x = args[0].to(factor.dtype).movedim(axis, -1)
        weight = factor / factor.sum()
        centerd = x - (x * weight).sum(-1, keepdim=True)
        variance = (centerd.square() * weight).sum(-1, keepdim=True)
        y = centerd * (variance + module.eps).rsqrt()
        if module.elementwise_affine:
            y = y * module.weight + (0 if module.bias is None else module.bias)
        return y.movedim(-1, axis).to(output.dtype)

    return norm
