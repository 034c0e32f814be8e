"""How much each head, hidden unit and channel matters. The larger the score, the rather it is kept.

Every score is called the same way, so that a configuration chooses one by name:
`score(net, layout, loss=..., batches=...)` gives `{"heads": {block: (heads,)}, "hidden": {block: (units,)},
"channels": {group: (channels,)}}`, float32 on the CPU. `loss(batch)` runs the net and returns a scalar; only the two
data-driven scores need it. The net is scored in eval mode, and neither its weights nor their gradients change.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from kd_runner.pruning.channels import input_axis
from kd_runner.pruning.layout import KINDS, Layout, find_units
from kd_runner.pruning.masks import masked
from kd_runner.pruning.units import Reader, Units

Scores = dict[str, dict[str, Tensor]]
Loss = Callable[[Any], Tensor]


class Magnitude:
    """Size of the weights, in a form that a mere change of scale inside a unit cannot move; needs no data.

    Head: `sqrt(|Wq^T Wk| * |Wo Wv|)`, Frobenius norms of the head's two products, query-key and value-output, biases as
    one more input column. Scaling q by c and k by 1/c (or v and proj), which leaves the net as it is, leaves the score
    as it is; a sum of norms over q, k and v alone does not, and does not see proj.
    Hidden unit: geometric mean of the norms of its rows (each with its bias) and of its column in the layer that reads
    it, that column times the norm's weight where there is one.
    Channel: geometric mean of what makes it and what reads it, each a root mean square over the layers that do: weights
    of its norm layers, or the norms of its rows where it has none, and the norms of its columns.
    """

    @torch.no_grad()
    def __call__(
        self, net: nn.Module, layout: Layout | Mapping, *, loss: Loss | None = None, batches: Iterable = ()
    ) -> Scores:
        return _per_units(net, layout, lambda unit: SIZES[unit.kind](unit))


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
        masks = _per_units(net, layout, lambda unit: _ones(unit).requires_grad_())
        leaves = [mask for of_blocks in masks.values() for mask in of_blocks.values()]
        totals = [torch.zeros_like(m, requires_grad=False) for m in leaves]
        count = 0
        with _eval(net), torch.enable_grad():
            for value in _losses(loss, batches, self.num_batches, lambda: masked(net, layout, masks)):
                totals = [t + g.abs() for t, g in zip(totals, _leaf_grads(value, leaves, masks))]
                count += 1
        return _like(masks, [t / count for t in totals])


class Taylor:
    """`|sum of activation * gradient|` over the unit's own channels, right before the layer that reads it.

    For heads these are the concatenated head outputs before `proj`. The sum runs over channels and tokens of one image
    (of one window where attention is windowed), its absolute value is averaged over images and batches, so that samples
    do not cancel. What several layers read is summed over them first. With one image per batch and no norm over the
    units it equals `Gradient`; a LayerNorm's shift is not part of it.

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
        totals = [torch.zeros(unit.count) for unit in flat]
        inputs: list[list[tuple[Reader, Tensor]]] = [[] for _ in flat]
        count = 0
        with _eval(net), torch.enable_grad():
            for value in _losses(loss, batches, self.num_batches, lambda: _recorded_inputs(flat, inputs)):
                for i, of_readers in enumerate(_grads(value, inputs, units)):
                    totals[i] = totals[i] + _taylor(flat[i].count, of_readers)
                count += 1
        return _like(units, [t / count for t in totals])


def _taylor(count: int, of_readers: list[tuple[Reader, Tensor, Tensor]]) -> Tensor:
    """Scores `(count,)` of one batch from the (reader, input, gradient) of every layer that reads the units."""
    sums: dict[int, Tensor] = {}  # by number of samples: a head on ROIs has others than the images
    for reader, x, g in of_readers:
        products = (x.detach() * g).float().movedim(reader.axis, -1)
        products = products.flatten(1, -2).sum(1) if products.dim() > 2 else products
        values = reader.per_unit(products, count)
        sums[len(values)] = sums[len(values)] + values if len(values) in sums else values
    return torch.stack([values.abs().mean(0).cpu() for values in sums.values()]).sum(0)


def _per_units(net: nn.Module, layout: Layout | Mapping, fn: Callable[[Units], Tensor]) -> Scores:
    by_kind = {kind: find_units(net, layout, kind) for kind in KINDS}
    return {kind: {block: fn(unit) for block, unit in units.items()} for kind, units in by_kind.items()}


def _like(tree: Mapping[str, Mapping[str, Any]], values: Iterable[Tensor]) -> Scores:
    values = iter(values)
    return {k: {b: next(values).detach().float().cpu() for b in of_blocks} for k, of_blocks in tree.items()}


def _ones(unit: Units) -> Tensor:
    weight: Any = unit.readers[0].module.weight
    return weight.new_ones(unit.count)


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
    for norm in unit.norms:
        if norm.module.elementwise_affine:
            columns = columns * norm.module.weight[:, None]  # type: ignore[operator, index]
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


def _channel_size(unit: Units) -> Tensor:
    sizes: dict[str, list[Tensor]] = {"norm": [], "row": [], "column": []}
    for s in unit.slices:
        if s.name != "weight":
            continue
        role = "norm" if s.tensor.ndim == 1 else "column" if s.axis == input_axis(s.owner) else "row"
        units, positions = s.entries(unit.count)
        squares = s.tensor.float().cpu().movedim(s.axis, 0).flatten(1 if s.tensor.ndim > 1 else 0)
        squares = squares.square().sum(1) if s.tensor.ndim > 1 else squares.square()
        sizes[role].append(squares.new_zeros(unit.count).index_add_(0, units, squares[positions]))
    made = torch.stack(sizes["norm"] or sizes["row"]).mean(0)
    return (made * torch.stack(sizes["column"]).mean(0)) ** 0.25


SIZES = {"heads": _head_size, "hidden": _hidden_size, "channels": _channel_size}


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
def _recorded_inputs(units: list[Units], inputs: list[list[tuple[Reader, Tensor]]]) -> Iterator[None]:
    """While active, put what enters each reader into `inputs`, able to carry a gradient in a frozen net too."""
    by_module: dict[nn.Module, list[tuple[int, Reader]]] = {}
    for i, unit in enumerate(units):
        inputs[i].clear()
        for reader in unit.readers:
            by_module.setdefault(reader.module, []).append((i, reader))

    def hook(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        x = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
        for i, reader in by_module[module]:
            inputs[i].append((reader, x))
        return (x,)

    hooks = [module.register_forward_pre_hook(hook) for module in by_module]
    try:
        yield
    finally:
        for hook_handle in hooks:
            hook_handle.remove()


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


def _grads(
    value: Tensor, inputs: list[list[tuple[Reader, Tensor]]], tree: Mapping[str, Mapping[str, Any]]
) -> list[list[tuple[Reader, Tensor, Tensor]]]:
    """Each unit's readers with input and gradient of `value`; `inputs` are in the order of `tree`."""
    flat = [x for of_unit in inputs for _, x in of_unit]
    grads = iter(torch.autograd.grad(value, flat, allow_unused=True))
    result = []
    for name, of_unit in zip(_names(tree), inputs):
        with_grads = [(reader, x, grad) for (reader, x), grad in zip(of_unit, grads) if grad is not None]
        if not with_grads:
            raise ValueError(f"score: the loss does not depend on {name}")
        result.append(with_grads)
    return result


def _leaf_grads(value: Tensor, leaves: list[Tensor], tree: Mapping[str, Mapping[str, Any]]) -> list[Tensor]:
    """Gradients of `value`; each of `leaves` belongs to the block at the same place of `tree`."""
    grads = torch.autograd.grad(value, leaves, allow_unused=True)
    for name, grad in zip(_names(tree), grads):
        if grad is None:
            raise ValueError(f"score: the loss does not depend on {name}")
    return list(grads)


def _names(tree: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{block} ({kind})" for kind, of_blocks in tree.items() for block in of_blocks]
