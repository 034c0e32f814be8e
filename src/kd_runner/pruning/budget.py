"""How many units each block keeps, and which."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_runner.errors import nearest

RANKINGS = ("per_block", "global")


@dataclass(frozen=True)
class Budget:
    """How many units of one kind to remove.

    Args:
        ratio: fraction REMOVED, in [0, 1), of the units of the unpruned net. 0 removes nothing.
        ranking: `per_block` removes the same fraction from every block; `global` ranks the units of all blocks
            together, each block's scores divided by their root mean square (the per-layer l2 normalization of
            Molchanov et al. 2017 and Michel et al. 2019, here independent of how many units a block has).
        floor: fraction of a block's units that is kept whatever its scores; one unit (one `multiple`) is always kept.
        multiple: kept counts are multiples of this (tensor cores like 8 and 64), the nearest one; a block that is
            kept whole keeps its width.

    Example:
        >>> scores = {"block": torch.tensor([0.3, 0.1, 0.9, 0.2])}
        >>> Budget(ratio=0.5).keep(scores)
        {'block': [0, 2]}
    """

    ratio: float
    ranking: str = "per_block"
    floor: float = 0.0
    multiple: int = 1

    def __post_init__(self):
        if not 0 <= self.ratio < 1:
            raise ValueError(f"ratio: the fraction removed lies in [0, 1), got {self.ratio}")
        if self.ranking not in RANKINGS:
            raise ValueError(f"ranking: no ranking {self.ranking!r}.{nearest(self.ranking, RANKINGS)}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor: a fraction of a block's units in [0, 1], got {self.floor}")
        if self.floor > 1 - self.ratio + 1e-9:
            raise ValueError(f"floor: {self.floor} kept per block contradicts ratio {self.ratio} removed")
        if self.multiple < 1:
            raise ValueError(f"multiple: at least 1, got {self.multiple}")

    def keep(
        self, scores: Mapping[str, Tensor], *, sizes: Mapping[str, int] | None = None, fraction: float = 1.0
    ) -> dict[str, list[int]]:
        """Choose the units to keep in each block; ties go to the lower index.

        Args:
            scores: block to the scores of its present units, `(units,)`; the highest are kept.
            sizes: block to its unpruned width, to which `ratio` refers where the net has been pruned before.
            fraction: part of `ratio` that is due, in [0, 1] (see `Schedule`).

        Returns:
            Block to the sorted indices to keep, into `scores[block]`.
        """
        ratio = self.ratio * fraction
        sizes = {block: len(s) for block, s in scores.items()} if sizes is None else sizes
        floors = {b: min(len(s), self._at_least(self.floor * sizes[b])) for b, s in scores.items()}
        if self.ranking == "per_block":
            counts = {b: max(floors[b], self._round((1 - ratio) * sizes[b], sizes[b])) for b in scores}
        else:
            counts = self._global_counts(scores, floors, round((1 - ratio) * sum(sizes[b] for b in scores)))
        order = {b: torch.argsort(s, descending=True, stable=True).tolist() for b, s in scores.items()}
        return {b: sorted(order[b][: counts[b]]) for b in scores}

    def _at_least(self, count: float) -> int:
        return max(math.ceil(count / self.multiple - 1e-9), 1) * self.multiple  # 0.07 * 100 is above 7

    def _round(self, target: float, size: int) -> int:
        """The nearest multiple that a block of `size` can have, or `size` itself if that is nearer."""
        lower = max(int(target // self.multiple) * self.multiple, min(self.multiple, size))
        upper = min(lower + self.multiple, size)
        return upper if upper - target <= target - lower else lower

    def _global_counts(self, scores: Mapping[str, Tensor], floors: Mapping[str, int], total: int) -> dict[str, int]:
        counts, steps = dict(floors), []
        for block, s in scores.items():
            s = torch.sort(s.double() / s.double().square().mean().sqrt().clamp_min(1e-300), descending=True).values
            # A step of `multiple` units is worth their mean score, so steps of one block come in falling order.
            for start in range(floors[block], len(s), self.multiple):
                step = s[start : start + self.multiple]
                steps.append((-step.mean().item(), block, len(step)))
        closed = set()
        for _, block, size in sorted(steps, key=lambda step: step[0]):
            if block in closed:
                continue
            if sum(counts.values()) + size - total <= total - sum(counts.values()):
                counts[block] += size
            else:
                closed.add(block)
        return counts
