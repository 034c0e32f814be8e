"""Cut units out of a net: the tensors get smaller, nothing is masked."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kd_runner.errors import nearest
from kd_runner.pruning.channels import present, set_widths
from kd_runner.pruning.layout import Layout, find_units
from kd_runner.pruning.optimizer_state import replace_parameters, select
from kd_runner.pruning.units import Pairs, Slice, Units, positions_of

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
def regroup(net: nn.Module, current: Layout, target: Layout, indices: Kept) -> None:
    """Make a net, in place, of some of its present units, in a given order.

    Args:
        net: the net.
        current: where its units are.
        target: where they shall be; differs in `kept` alone.
        indices: `indices[kind][block]`, into the present units; one may stand twice.
    """
    jobs: list[tuple[Units, list[int]]] = []
    plans: dict[tuple[int, str, int], _Regrouped] = {}
    for kind, blocks in indices.items():
        units = find_units(net, current, kind)
        target_pairs = present(target.channels, target.kept)[0] if kind == "channels" else {}
        for block, chosen in blocks.items():
            unit = units[block]
            jobs.append((unit, list(chosen)))
            for i, s in enumerate(unit.slices):
                plan = plans.setdefault((id(s.owner), s.name, s.axis % s.tensor.ndim), _Regrouped(s))
                plan.add(s.entries(unit.count), target_pairs[block][i] if target_pairs else None, chosen, unit.count)
    changed = {key for key, plan in plans.items() if plan.index.tolist() != list(range(plan.slice.size))}
    changes = _by_tensor((plan.slice, plan.index) for key, plan in plans.items() if key in changed)
    _apply(net, changes, [(unit, chosen) for unit, chosen in jobs if chosen != list(range(unit.count))], None)


class _Regrouped:
    """The axis of a tensor in another order, put together from all groups of units that stand on it."""

    def __init__(self, s: Slice):
        self.slice, self.free = s, torch.ones(s.size, dtype=torch.bool)
        self.new: list[tuple[Tensor, Tensor]] = []  # positions to be, and what stands there

    def add(self, now: Pairs, target_pairs: Pairs | None, chosen: Sequence[int], count: int) -> None:
        units, positions = now
        self.free[positions] = False
        if target_pairs is None:  # the units fill the axis
            grid = torch.arange(self.slice.size).unflatten(0, (self.slice.parts, count, -1))
            taken = grid[:, list(chosen)].flatten()
            self.new.append((torch.arange(len(taken)), taken))
            return
        # One unit may have several entries on the axis; the n-th one of the new unit is the n-th one of the old.
        entries: dict[int, list[int]] = {}
        for unit, position in zip(units.tolist(), positions.tolist()):
            entries.setdefault(unit, []).append(position)
        seen: dict[int, int] = {}
        taken = []
        for unit in target_pairs[0].tolist():
            of_old = entries.get(chosen[unit]) or next(iter(entries.values()))
            taken.append(of_old[seen.get(unit, 0) % len(of_old)])
            seen[unit] = seen.get(unit, 0) + 1
        self.new.append((target_pairs[1], torch.tensor(taken)))

    @property
    def index(self) -> Tensor:
        free = self.free.nonzero().flatten()
        index = torch.full((len(free) + sum(len(taken) for _, taken in self.new),), -1)
        for positions, taken in self.new:
            index[positions] = taken
        index[index < 0] = free
        return index


Changes = list[tuple[Slice, list[tuple[int, Tensor]]]]
"""A slice of each tensor that changes, and (axis, positions that make it up)."""


def _by_tensor(changes: Iterable[tuple[Slice, Tensor]]) -> Changes:
    grouped: dict[tuple[int, str], tuple[Slice, list[tuple[int, Tensor]]]] = {}
    for s, index in changes:
        grouped.setdefault((id(s.owner), s.name), (s, []))[1].append((s.axis % s.tensor.ndim, index))
    return list(grouped.values())


def _select(net: nn.Module, jobs: list[tuple[Units, list[int]]], optimizer: Optimizer | None) -> None:
    stays: dict[tuple[int, str, int], tuple[Slice, Tensor]] = {}
    for unit, indices in jobs:
        gone = sorted(set(range(unit.count)) - set(indices))
        for s in unit.slices:
            key = (id(s.owner), s.name, s.axis % s.tensor.ndim)
            _, mask = stays.setdefault(key, (s, torch.ones(s.size, dtype=torch.bool)))
            mask[positions_of(s.entries(unit.count), gone, unit.count)] = False
    _apply(net, _by_tensor((s, mask.nonzero().flatten()) for s, mask in stays.values()), jobs, optimizer)


def _apply(net: nn.Module, changes: Changes, jobs: list[tuple[Units, list[int]]], optimizer: Optimizer | None) -> None:
    _check_shared(net, changes)
    new = [select(s.tensor, axes) for s, axes in changes]
    if optimizer is not None:
        new = replace_parameters(optimizer, [(s.tensor, t, axes) for (s, axes), t in zip(changes, new)])
    for (s, axes), tensor in zip(changes, new):
        _put(s, axes, tensor)
    for unit, indices in jobs:
        _resize(unit, len(indices))


def _checked(unit: Units, indices: Sequence[int]) -> list[int]:
    subject = f"{unit.kind} kept in {unit.block}"
    if not indices:
        raise ValueError(f"{subject}: at least one has to stay")
    if len(set(indices)) < len(indices) or min(indices) < 0 or max(indices) >= unit.count:
        raise ValueError(f"{subject}: needs different indices below {unit.count}, got {list(indices)}")
    return sorted(indices)


def _check_shared(net: nn.Module, changes: Changes) -> None:
    # A tied tensor would be cut twice, or in one place only.
    places: dict[int, list[str]] = {}
    for path, module in net.named_modules(remove_duplicate=False):
        for name, p in (*module._parameters.items(), *module._buffers.items()):
            if p is not None:
                places.setdefault(id(p), []).append(f"{path}.{name}")
    for s, _ in changes:
        shared = places[id(s.tensor)]
        if len(shared) > 1:
            raise ValueError(f"layout: a tensor shared by {' and '.join(shared)} cannot be cut")


def _put(s: Slice, axes: list[tuple[int, Tensor]], tensor: Tensor) -> None:
    old = s.tensor
    if isinstance(old, nn.Parameter):
        if not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=old.requires_grad)
        if old.grad is not None:
            tensor.grad = select(old.grad, axes)
    setattr(s.owner, s.name, tensor)


def _resize(unit: Units, count: int) -> None:
    """Make the attributes that state a width say the new one."""
    for owner in {id(s.owner): s.owner for s in unit.slices}.values():
        set_widths(owner)
    for owner, name, per_unit in unit.counters:
        setattr(owner, name, count * per_unit)
        if f"{type(owner).__module__}.{type(owner).__name__}" == "timm.models.eva.EvaAttention":
            from kd_runner.pruning.timm_eva import AnyWidthEvaAttention  # Only for nets that have loaded timm.

            owner.__class__ = AnyWidthEvaAttention
