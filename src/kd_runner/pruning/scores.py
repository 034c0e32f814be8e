"""How much each head and hidden unit matters. The larger the score, the rather it is kept.

Every score is called the same way, so that a configuration chooses one by name:
`score(net, layout, loss=..., batches=...)` gives `{"heads": {block: (heads,)}, "hidden": {block: (units,)}}`, float32
on the CPU. `loss(batch)` runs the net and returns a scalar; only the two data-driven scores need it. The net is scored
in eval mode, and neither its weights nor their gradients change.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from kd_runner.pruning.layout import KINDS, Layout, Units, find_units
from kd_runner.pruning.masks import masked

Scores = dict[str, dict[str, Tensor]]
Loss = Callable[[Any], Tensor]


class Magnitude:
    """Size of the weights, in a form that a mere change of scale inside a unit cannot move; needs no data.

    Head: `sqrt(|Wq^T Wk| * |Wo Wv|)`, Frobenius norms of the head's two products, query-key and value-output, biases as
    one more input column. Scaling q by c and k by 1/c (or v and proj), which leaves the net as it is, leaves the score
    as it is; a sum of norms over q, k and v alone does not, and does not see proj.
    Hidden unit: geometric mean of the norms of its rows (each with its bias) and of its column in the layer that reads
    it, that column times the norm's weight where there is one.
    """

    @torch.no_grad()
    def __call__(
        self, net: nn.Module, layout: Layout | Mapping, *, loss: Loss | None = None, batches: Iterable = ()
    ) -> Scores:
        return _per_units(net, layout, lambda unit: _head_size(unit) if unit.kind == "heads" else _hidden_size(unit))


class Random:
    """Uniform random numbers: the control that every other score has to beat.

    Args:
        seed: of the numbers.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed

    def __call__(
        self, net: nn.Module, layout: Layout | Mapping, *, loss: Loss | None = None, batches: Iterable = ()
    ) -> Scores:
        generator = torch.Generator().manual_seed(self.seed)
        return _per_units(net, layout, lambda unit: torch.rand(unit.count, generator=generator))


class Gradient:
    """`|d loss / d m|` of a factor m on each unit, one for a whole batch, averaged over batches.

    What a factor does is said in `masks.py`: the shift of a LayerNorm over the units is part of it. Contributions of
    opposite sign cancel within a batch.

    Args:
        num_batches: batches to average over.

    Source:
        Michel et al. 2019, arXiv 1905.10650, section 4.1.
    """

    def __init__(self, num_batches: int = 8):
        self.num_batches = num_batches

    def __call__(
        self, net: nn.Module, layout: Layout | Mapping, *, loss: Loss | None = None, batches: Iterable = ()
    ) -> Scores:
        layout = Layout.read(layout)
        masks = _per_units(net, layout, lambda unit: unit.out.weight.new_ones(unit.count).requires_grad_())
        leaves = [mask for of_blocks in masks.values() for mask in of_blocks.values()]
        totals = [torch.zeros_like(m, requires_grad=False) for m in leaves]
        count = 0
        with _eval(net), torch.enable_grad():
            for value in _losses(loss, batches, self.num_batches, lambda: masked(net, layout, masks)):
                totals = [t + g.abs() for t, g in zip(totals, _grads(value, leaves, masks))]
                count += 1
        return _like(masks, [t / count for t in totals])


class Taylor:
    """`|sum of activation * gradient|` over the unit's own channels, right before the layer that reads it.

    For heads these are the concatenated head outputs before `proj`. The sum runs over channels and tokens of one image
    (of one window where attention is windowed), its absolute value is averaged over images and batches, so that samples
    do not cancel. With one image per batch and no norm over the units it equals `Gradient`; a LayerNorm's shift is not
    part of it.

    Args:
        num_batches: batches to average over.

    Source:
        Molchanov et al. 2017, arXiv 1611.06440, section 2.2.
    """

    def __init__(self, num_batches: int = 8):
        self.num_batches = num_batches

    def __call__(
        self, net: nn.Module, layout: Layout | Mapping, *, loss: Loss | None = None, batches: Iterable = ()
    ) -> Scores:
        layout = Layout.read(layout)
        units = {kind: find_units(net, layout, kind) for kind in KINDS}
        flat = [unit for of_blocks in units.values() for unit in of_blocks.values()]
        totals, inputs = [torch.zeros(unit.count) for unit in flat], [torch.empty(0)] * len(flat)
        count = 0
        with _eval(net), torch.enable_grad():
            for value in _losses(loss, batches, self.num_batches, lambda: _recorded_inputs(flat, inputs)):
                for i, g in enumerate(_grads(value, inputs, units)):
                    products = (inputs[i].detach() * g).float().unflatten(-1, (flat[i].count, -1))
                    products = products.flatten(1, -3) if products.dim() > 3 else products[:, None]
                    totals[i] = totals[i] + products.sum((1, 3)).abs().mean(0).cpu()
                count += 1
        return _like(units, [t / count for t in totals])


def _per_units(net: nn.Module, layout: Layout | Mapping, fn: Callable[[Units], Tensor]) -> Scores:
    by_kind = {kind: find_units(net, layout, kind) for kind in KINDS}
    return {kind: {block: fn(unit) for block, unit in units.items()} for kind, units in by_kind.items()}


def _like(tree: Mapping[str, Mapping[str, Any]], values: Iterable[Tensor]) -> Scores:
    values = iter(values)
    return {k: {b: next(values).detach().float().cpu() for b in of_blocks} for k, of_blocks in tree.items()}


def _rows(unit: Units) -> list[Tensor]:
    """Per projection the rows of each unit with their bias as a last column, `(units, width, inputs + 1)`."""
    rows = []
    for weight, bias in unit.made_by:
        column = weight.new_zeros(len(weight), 1) if bias is None else bias[:, None]
        rows.append(torch.cat((weight, column), 1).float().unflatten(0, (unit.count, -1)).cpu())
    return rows


def _columns(unit: Units) -> Tensor:
    """Columns of the layer that reads the units, times the norm's weight: `(units, width, outputs)`."""
    columns = unit.out.weight.T
    if unit.norm is not None and unit.norm.elementwise_affine:
        columns = columns * unit.norm.weight[:, None]
    return columns.float().unflatten(0, (unit.count, -1)).cpu()


def _head_size(unit: Units) -> Tensor:
    q, k, v = _rows(unit)

    def product(a: Tensor, b: Tensor) -> Tensor:
        # |a^T b|_F by the small Gram matrices: tr(a a^T b b^T).
        return ((a @ a.mT) * (b @ b.mT)).sum((1, 2)).clamp_min(0).sqrt()

    return (product(q, k) * product(v, _columns(unit))).sqrt()


def _hidden_size(unit: Units) -> Tensor:
    sizes = torch.stack([x.flatten(1).norm(dim=1) for x in (*_rows(unit), _columns(unit))])
    return sizes.prod(0) ** (1 / len(sizes))


@contextmanager
def _eval(net: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _recorded_inputs(units: list[Units], inputs: list[Tensor]) -> Iterator[None]:
    """While active, put what enters each `unit.out` into `inputs`, able to carry a gradient in a frozen net too."""

    def keep(i: int):
        def hook(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            inputs[i] = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
            return (inputs[i],)

        return hook

    inputs[:] = [torch.empty(0, requires_grad=True) for _ in units]
    hooks = [unit.out.register_forward_pre_hook(keep(i)) for i, unit in enumerate(units)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _losses(
    loss: Loss | None, batches: Iterable, num_batches: int, watched: Callable[[], AbstractContextManager]
) -> Iterator[Tensor]:
    """The loss of each of the first `num_batches` batches, computed while the net is `watched`."""
    if loss is None:
        raise ValueError("score: this score needs data: a loss and batches")
    empty = True
    for batch in islice(batches, num_batches):
        with watched():
            value = loss(batch)
        yield value
        empty = False
    if empty:
        raise ValueError("score: no batches to score on")


def _grads(value: Tensor, inputs: list[Tensor], tree: Mapping[str, Mapping[str, Any]]) -> list[Tensor]:
    """Gradients of `value`; each of `inputs` belongs to the block at the same place of `tree`."""
    grads = torch.autograd.grad(value, inputs, allow_unused=True)
    names = [f"{block} ({kind})" for kind, of_blocks in tree.items() for block in of_blocks]
    for name, grad in zip(names, grads):
        if grad is None:
            raise ValueError(f"score: the loss does not depend on {name}")
    return list(grads)
