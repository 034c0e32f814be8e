"""Cut units out of a net: the tensors get smaller, nothing is masked."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kd_runner.errors import nearest
from kd_runner.pruning.layout import Layout, Slice, Units, find_units
from kd_runner.pruning.optimizer_state import replace_parameters

Kept = Mapping[str, Mapping[str, Sequence[int]]]


@torch.no_grad()
def cut(net: nn.Module, layout: Layout | Mapping, kept: Kept, *, optimizer: Optimizer | None = None) -> None:
    """Keep some units of a net, in place, and drop the others.

    Blocks that are not named, or keep everything, stay untouched. The result equals the masked net of `masks.py`.

    Args:
        net: the net.
        layout: where its heads and hidden units are.
        kept: `kept[kind][block]`, indices into the present units.
        optimizer: of the net. A cut parameter is a new `nn.Parameter`: the optimizer's groups and state are cut along.
            Cut before DDP, `torch.compile` or an average of weights takes hold of the net.

    Raises:
        ValueError: unknown blocks, indices that do not fit, tensors shared by two blocks, or optimizer state of an
            unknown shape; the net is as it was.
    """
    layout = Layout.read(layout)
    jobs: list[tuple[Units, list[int]]] = []
    for kind, of_blocks in kept.items():
        units = find_units(net, layout, kind)
        for block, indices in of_blocks.items():
            if block not in units:
                raise ValueError(f"kept: no {kind} in block {block!r}.{nearest(block, units)}")
            jobs.append((units[block], _checked(units[block], indices)))
    _select(net, [(unit, indices) for unit, indices in jobs if len(indices) < unit.count], optimizer)


@torch.no_grad()
def regroup(net: nn.Module, layout: Layout | Mapping, indices: Kept) -> None:
    """Make a net, in place, of some of its present units, in a given order.

    Args:
        net: the net.
        layout: where its heads and hidden units are.
        indices: `indices[kind][block]`, into the present units; one may stand twice.
    """
    layout = Layout.read(layout)
    units = {kind: find_units(net, layout, kind) for kind in indices}
    jobs = [(units[kind][block], list(of)) for kind, blocks in indices.items() for block, of in blocks.items()]
    _select(net, [(unit, of) for unit, of in jobs if of != list(range(unit.count))], None)


def _select(net: nn.Module, jobs: list[tuple[Units, list[int]]], optimizer: Optimizer | None) -> None:
    cuts = [(s, _positions(s, indices, unit.count)) for unit, indices in jobs for s in unit.slices]
    _check_shared(net, cuts)

    new = [s.tensor.index_select(s.axis, index.to(s.tensor.device)) for s, index in cuts]
    if optimizer is not None:
        new = replace_parameters(optimizer, [(s.tensor, t, s.axis, index) for (s, index), t in zip(cuts, new)])
    for (s, index), tensor in zip(cuts, new):
        _put(s, index, tensor)
    for unit, indices in jobs:
        _resize(unit, len(indices))


def _checked(unit: Units, indices: Sequence[int]) -> list[int]:
    subject = f"{unit.kind} kept in {unit.block}"
    if not indices:
        raise ValueError(f"{subject}: at least one has to stay")
    if len(set(indices)) < len(indices) or min(indices) < 0 or max(indices) >= unit.count:
        raise ValueError(f"{subject}: needs different indices below {unit.count}, got {list(indices)}")
    return sorted(indices)


def _positions(s: Slice, indices: list[int], count: int) -> Tensor:
    """Positions on the axis: laid out as parts (q, k, v), then units, then channels of a unit."""
    grid = torch.arange(s.tensor.shape[s.axis]).unflatten(0, (s.parts, count, -1))
    return grid[:, indices].flatten()


def _check_shared(net: nn.Module, cuts: list[tuple[Slice, Tensor]]) -> None:
    # A tied tensor would be cut twice, or in one place only.
    places: dict[int, list[str]] = {}
    for path, module in net.named_modules(remove_duplicate=False):
        for name, p in (*module._parameters.items(), *module._buffers.items()):
            if p is not None:
                places.setdefault(id(p), []).append(f"{path}.{name}")
    for s, _ in cuts:
        shared = places[id(s.tensor)]
        if len(shared) > 1:
            raise ValueError(f"layout: a tensor shared by {' and '.join(shared)} cannot be cut")


def _put(s: Slice, index: Tensor, tensor: Tensor) -> None:
    old = s.tensor
    if isinstance(old, nn.Parameter):
        if not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=old.requires_grad)
        if old.grad is not None:
            tensor.grad = old.grad.index_select(s.axis, index.to(old.device))
    setattr(s.owner, s.name, tensor)


def _resize(unit: Units, count: int) -> None:
    """Make the attributes that state a width say the new one."""
    for owner in {id(s.owner): s.owner for s in unit.slices}.values():
        if isinstance(owner, nn.Linear):
            owner.out_features, owner.in_features = owner.weight.shape
        elif isinstance(owner, nn.LayerNorm):
            owner.normalized_shape = (count * (owner.normalized_shape[0] // unit.count),)
    for owner, name, per_unit in unit.counters:
        setattr(owner, name, count * per_unit)
        if f"{type(owner).__module__}.{type(owner).__name__}" == "timm.models.eva.EvaAttention":
            from kd_runner.pruning.timm_eva import AnyWidthEvaAttention  # Only for nets that have loaded timm.

            owner.__class__ = AnyWidthEvaAttention
