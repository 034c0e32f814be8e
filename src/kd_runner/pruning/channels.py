"""Groups of coupled channels: what must shrink together, as plain data.

A group is `{"of": channels, "members": [member, ...]}`, a member an axis of a parameter or buffer that runs over them:

```json
{"tensor": "layer1.0.conv1.weight", "axis": 0, "size": 64, "runs": [[0, 0, 64, 1]]}
```
`size` is the length of the axis in the unpruned net. A run `[channel, position, count, copies]` says that `count`
channels from `channel` on stand from `position` on, each `copies` times in turn: a linear layer behind a flattened map
of 3 x 3 has 9, the second input of a concatenation begins at a later position, and an axis may hold other groups too.
Nothing here needs the library that found the groups, so a cut net is rebuilt from its file alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from kd_runner.errors import nearest
from kd_runner.pruning.units import Pairs, Reader, Slice, Units

Groups = Mapping[str, Mapping[str, Any]]
Kept = Mapping[str, Sequence[int]]


def input_axis(module: nn.Module) -> int | None:
    """Axis of a layer's weight that runs over its input.

    Args:
        module: any layer.

    Returns:
        The axis; None for what works channel by channel, and for what is no convolution or linear layer.
    """
    if isinstance(module, nn.Linear):
        return 1
    if isinstance(module, _ConvNd) and module.groups == 1:
        return 0 if isinstance(module, _ConvTransposeNd) else 1
    return None


def norm_axis(norm: nn.LayerNorm) -> int:
    """Axis of the input that a LayerNorm normalizes: timm's and torchvision's `LayerNorm2d` take (B, C, H, W).

    Args:
        norm: the layer.

    Returns:
        1 or -1.
    """
    return 1 if type(norm).__name__.endswith("2d") else -1


def channel_units(net: nn.Module, groups: Groups, kept: Kept) -> dict[str, Units]:
    """The channels of each group that are present.

    Args:
        net: as it is now.
        groups: groups of coupled channels, by name.
        kept: channels of each group that are present, in numbers of the unpruned net; all of them where it is silent.

    Returns:
        Name of each group to its channels.

    Raises:
        ValueError: a tensor is missing or has another size.
    """
    pairs, sizes = present(groups, kept)
    made = {}
    for name, group in groups.items():
        slices, readers, norms = [], [], []
        for member, entries in zip(group["members"], pairs[name]):
            path, _, tensor = member["tensor"].rpartition(".")
            owner = _owner(net, path, tensor)
            piece = Slice(owner, tensor, member["axis"], pairs=entries)
            expected = sizes[member["tensor"], member["axis"]]
            if piece.size != expected:
                raise ValueError(f"layout.channels: {member['tensor']} has {piece.size} channels, expected {expected}")
            slices.append(piece)
            if tensor == "weight" and member["axis"] == input_axis(owner):
                axis = -1 if isinstance(owner, nn.Linear) else 1
                readers.append(Reader(owner, axis, piece.size, entries))
            elif tensor == "weight" and isinstance(owner, nn.LayerNorm):
                norms.append(Reader(owner, norm_axis(owner), piece.size, entries))
        made[name] = Units("channels", name, len(kept.get(name, range(group["of"]))), readers, norms, slices)
    return made


def _owner(net: nn.Module, path: str, tensor: str) -> nn.Module:
    try:
        owner = net.get_submodule(path)
    except AttributeError:
        raise ValueError(
            f"layout.channels: the net has no module {path!r}.{nearest(path, dict(net.named_modules()))}"
        ) from None
    if not isinstance(getattr(owner, tensor, None), Tensor):
        raise ValueError(f"layout.channels: {path} has no tensor {tensor!r}")
    return owner


def present(groups: Groups, kept: Kept) -> tuple[dict[str, list[Pairs]], dict[tuple[str, int], int]]:
    """Where the channels that are present stand in the pruned net.

    Args:
        groups: groups of coupled channels, by name.
        kept: channels of each group that are present, in numbers of the unpruned net; all of them where it is silent.

    Returns:
        (channel, position) of every entry, by group and member, in numbers of the pruned net; and the length of every
        axis (tensor, axis) in it.
    """
    stays: dict[tuple[str, int], Tensor] = {}
    entries: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, group in groups.items():
        number = torch.full((group["of"],), -1)  # of each channel in the pruned net
        still = list(kept.get(name, range(group["of"])))
        number[still] = torch.arange(len(still))
        entries[name] = []
        for member in group["members"]:
            units, positions = expand(member["runs"])
            axis = stays.setdefault((member["tensor"], member["axis"]), torch.ones(member["size"], dtype=torch.bool))
            axis[positions[number[units] < 0]] = False
            entries[name].append((number[units], positions))
    pairs: dict[str, list[Pairs]] = {}
    for name, group in groups.items():
        pairs[name] = []
        for member, (units, positions) in zip(group["members"], entries[name]):
            moved = stays[member["tensor"], member["axis"]].long().cumsum(0) - 1
            pairs[name].append((units[units >= 0], moved[positions[units >= 0]]))
    return pairs, {axis: int(mask.sum()) for axis, mask in stays.items()}


def expand(runs: Iterable[Sequence[int]]) -> Pairs:
    """The entries of runs.

    Args:
        runs: `[channel, position, count, copies]` each.

    Returns:
        (channel, position) of every entry, in the order of the runs.
    """
    units, positions = [], []
    for unit, position, count, copies in runs:
        units.append(torch.arange(unit, unit + count).repeat_interleave(copies))
        positions.append(torch.arange(position, position + count * copies))
    return torch.cat(units), torch.cat(positions)


def to_runs(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The shortest description of some entries of an axis.

    Args:
        pairs: (position, channel) of each.

    Returns:
        Runs `[channel, position, count, copies]`, in the order of the axis.
    """
    runs: list[list[int]] = []
    blocks: list[list[int]] = []  # channel, position, copies
    for position, unit in sorted(pairs):
        if blocks and blocks[-1][0] == unit and blocks[-1][1] + blocks[-1][2] == position:
            blocks[-1][2] += 1
        else:
            blocks.append([unit, position, 1])
    for unit, position, copies in blocks:
        last = runs[-1] if runs else None
        if last and last[3] == copies and last[0] + last[2] == unit and last[1] + last[2] * copies == position:
            last[2] += 1
        else:
            runs.append([unit, position, 1, copies])
    return runs


def set_widths(module: nn.Module) -> None:
    """Make the attributes that state a layer's width say that of its tensors.

    Args:
        module: a layer whose tensors were cut.
    """
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _ConvTransposeNd):
        module.in_channels, module.out_channels = module.weight.shape[:2]
    elif isinstance(module, _ConvNd) and module.groups == 1:
        module.out_channels, module.in_channels = module.weight.shape[:2]
    elif isinstance(module, _ConvNd):
        module.groups = module.in_channels = module.out_channels = len(module.weight)
    elif isinstance(module, _BatchNorm):
        tensor = module.weight if module.weight is not None else module.running_mean
        module.num_features = module.num_features if tensor is None else len(tensor)
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
