"""Prunable units: a head, a hidden unit or a channel, and every tensor that runs over them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Pairs = tuple[Tensor, Tensor]
"""Unit and position on the axis, `(entries,)` each, in the order of the axis."""


@dataclass(frozen=True)
class Slice:
    """An axis of a parameter or buffer that runs over the units, `parts` times in turn in a fused projection.

    `pairs` says which entries of the axis belong to which unit where the axis holds other things too.
    """

    owner: nn.Module
    name: str
    axis: int
    parts: int = 1
    pairs: Pairs | None = None

    @property
    def tensor(self) -> Tensor:
        return getattr(self.owner, self.name)

    @property
    def size(self) -> int:
        return self.tensor.shape[self.axis]

    def entries(self, count: int) -> Pairs:
        """The entries of the axis that belong to units.

        Args:
            count: number of units.

        Returns:
            Unit and position of each.
        """
        if self.pairs is not None:
            return self.pairs
        units = torch.arange(count)[None, :, None].expand(self.parts, count, self.size // (self.parts * count))
        return units.flatten(), torch.arange(self.size)


@dataclass(frozen=True)
class Reader:
    """A layer that takes the units in: which entries of its input (on `axis`, `size` of them) belong to which unit."""

    module: nn.Module
    axis: int
    size: int
    pairs: Pairs

    def factors(self, mask: Tensor) -> Tensor:
        """Factors of the input channels.

        Args:
            mask: a factor of each unit `(units,)`.

        Returns:
            `(size,)`, 1 where no unit stands.
        """
        units, positions = self.pairs
        index = torch.full((self.size,), len(mask))
        index[positions] = units
        return torch.cat((mask, mask.new_ones(1)))[index.to(mask.device)]

    def per_unit(self, values: Tensor, count: int) -> Tensor:
        """Sums over the input channels of each unit.

        Args:
            values: `(B, size)`.
            count: number of units.

        Returns:
            `(B, count)`.
        """
        units, positions = (t.to(values.device) for t in self.pairs)
        return values.new_zeros(len(values), count).index_add_(1, units, values[:, positions])


@dataclass
class Units:
    """The heads or the hidden units of one block, or coupled channels, and every tensor that runs over them.

    `readers` are the layers that read them; `norms` the LayerNorms over all of them before that; `made_by` (weight,
    bias or None) of the projections that make heads (q, k, v) or hidden units (gate and value; or one); `counters`
    attributes that hold a number of units, with the factor.
    """

    kind: str
    block: str
    count: int
    readers: list[Reader]
    norms: list[Reader]
    slices: list[Slice]
    made_by: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)
    counters: list[tuple[nn.Module, str, int]] = field(default_factory=list)

    @property
    def out(self) -> nn.Linear:
        """The linear layer that reads heads or hidden units."""
        return self.readers[0].module  # type: ignore[return-value]

    @property
    def width(self) -> int:
        """Channels per unit in the input of `out`: the head width, or 1 for hidden units."""
        return self.out.in_features // self.count


def reads_in_order(module: nn.Module, size: int, count: int) -> Reader:
    """A layer on the last axis whose inputs are the units, one after the other.

    Args:
        module: the layer.
        size: number of its inputs.
        count: number of units.

    Returns:
        The reader.
    """
    return Reader(module, -1, size, (torch.arange(count).repeat_interleave(size // count), torch.arange(size)))


def positions_of(pairs: Pairs, units: Sequence[int], count: int) -> Tensor:
    """Positions of some of the units.

    Args:
        pairs: unit and position of every entry of an axis.
        units: those that are wanted.
        count: number of units.

    Returns:
        Their positions, in the order of the axis.
    """
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[list(units)] = True
    return pairs[1][chosen[pairs[0]]]
