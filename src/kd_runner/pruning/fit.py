"""Fit a net into a budget of milliseconds, multiply-adds, parameters or megabytes: the most important channels that do.

Source: Shen et al. 2022, Structural Pruning via Latency-Saliency Knapsack (HALP), NeurIPS, arXiv 2110.10811.
"""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import LinearConstraint, milp
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from kd_runner.errors import nearest
from kd_runner.profiling import costs
from kd_runner.profiling.layers import ENGINES, LayerTimes
from kd_runner.pruning.layout import Layout, find_units
from kd_runner.pruning.report import cost
from kd_runner.pruning.surgery import cut
from kd_runner.pruning.units import Units

log = logging.getLogger(__name__)

Arguments = tuple[tuple[Tensor, ...], dict[str, Tensor]]
"""Positional and named, of a call."""
Milliseconds = Callable[[Mapping[str, nn.Module]], Mapping[str, float]]
"""Times nets in turns: name to net, to name to milliseconds."""
MOST_WIDTHS = 12  # of one group in the knapsack


class Fit:
    """A budget of the whole net. Give one of the five.

    A knapsack (mixed-integer program) chooses the width of each group: the sum of the scores that are kept, each
    group's divided by their root mean square, is largest while the predicted cost fits. The prediction is of first
    order in each width, from a table of single layers; so the net is then cut in a copy and measured, and the knapsack
    solved again with another capacity, until what is measured meets the budget.

    Args:
        latency_ms: milliseconds of one call with one sample.
        latency_ratio: the same as a fraction of the net before pruning, measured in turns with it.
        multiply_adds: of one call with one sample.
        parameters: number of them.
        megabytes: of the weights in memory, 1e6 bytes.
        engine: that is timed, `torch` or `onnxruntime`, on this CPU.
        multiple: widths are multiples of this; a group that is kept whole, and one that is narrower, keep theirs.
        tolerance: largest relative distance from the budget.
        rounds: solutions at most; the nearest counts.
        cache: folder of the table of layer times; None for none.
    """

    def __init__(
        self,
        latency_ms: float | None = None,
        latency_ratio: float | None = None,
        multiply_adds: float | None = None,
        parameters: float | None = None,
        megabytes: float | None = None,
        engine: str = "torch",
        multiple: int = 8,
        tolerance: float = 0.05,
        rounds: int = 6,
        cache: str | None = None,
    ):
        budgets = {
            "latency_ms": latency_ms, "latency_ratio": latency_ratio, "multiply_adds": multiply_adds,
            "parameters": parameters, "megabytes": megabytes,
        }  # fmt: skip
        given = {key: value for key, value in budgets.items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"budget: give one of {', '.join(budgets)}, not {', '.join(given) or 'none'}")
        if engine not in ENGINES:
            raise ValueError(f"budget.engine: no engine {engine!r}.{nearest(engine, ENGINES)}")
        (self.kind, self.target) = next(iter(given.items()))
        if self.target <= 0 or (self.kind == "latency_ratio" and self.target >= 1):
            raise ValueError(f"budget.{self.kind}: {self.target} is no budget")
        self.engine, self.multiple, self.tolerance, self.rounds, self.cache = engine, multiple, tolerance, rounds, cache

    @property
    def timed(self) -> bool:
        """Whether the budget is one of time."""
        return self.kind.startswith("latency")

    def choose(
        self,
        net: nn.Module,
        layout: Layout,
        scores: Mapping[str, Tensor],
        arguments: Arguments,
        milliseconds: Milliseconds | None = None,
    ) -> dict[str, list[int]]:
        """The channels to keep.

        Args:
            net: is not changed.
            layout: where its channels are.
            scores: of each group `(channels,)`.
            arguments: what the net is called with, one sample.
            milliseconds: times nets; None for torch on the CPU.

        Returns:
            Sorted indices to keep in each group.

        """
        net = copy.deepcopy(net).cpu().eval()
        layers = _Layers(net, layout, arguments, self)
        whole = {name: unit.count for name, unit in layers.units.items()}
        measure = self._measure(net, layout, scores, arguments, milliseconds)
        widths = {name: _widths(count, self.multiple) for name, count in whole.items()}
        values = {name: _values(scores[name], widths[name]) for name in whole}
        best = (float("inf"), whole)
        measured, reference = measure(whole)
        goal = self.target * reference if self.kind == "latency_ratio" else self.target
        # Predictions between those of the narrowest and of the whole net, with what was measured there, if it was.
        knapsack = _Knapsack(layers, widths, values, goal / measured)
        low: tuple[float, float | None] = (knapsack.least, None)
        high: tuple[float, float | None] = (knapsack.most, measured)
        capacity = knapsack.most * min(1.0, goal / measured)
        for number in range(self.rounds):
            counts = knapsack.solve(capacity)
            measured, reference = measure(counts)
            goal = self.target * reference if self.kind == "latency_ratio" else self.target
            best = min(best, (abs(measured / goal - 1), counts), key=lambda entry: entry[0])
            log.info("budget %s: round %d gives %.4g of %.4g", self.kind, number + 1, measured, goal)
            if best[0] <= self.tolerance:
                break
            if measured > goal:
                high = (min(capacity, high[0]), measured)
            else:
                low = (max(capacity, low[0]), measured)
            capacity = _between(low, high, goal)
        layers.save()
        if best[0] > self.tolerance:
            log.warning("budget %s: missed by %.0f %%, the nearest widths count", self.kind, 100 * best[0])
        return {name: _top(scores[name], count) for name, count in best[1].items()}

    def _measure(
        self,
        net: nn.Module,
        layout: Layout,
        scores: Mapping[str, Tensor],
        arguments: Arguments,
        milliseconds: Milliseconds | None,
    ) -> Callable[[Mapping[str, int]], tuple[float, float]]:
        """A function of widths that cuts the net to them and measures it: cost, and that of the whole net beside it."""
        args, named = arguments

        def in_torch(nets: Mapping[str, nn.Module]) -> Mapping[str, float]:
            calls = {name: costs.torch_call(part, named, args) for name, part in nets.items()}
            return costs.latency(calls, statistic=min)

        def measure(counts: Mapping[str, int]) -> tuple[float, float]:
            smaller = copy.deepcopy(net)
            cut(smaller, layout, {"channels": {name: _top(scores[name], count) for name, count in counts.items()}})
            if self.timed:
                times = (milliseconds or in_torch)({"cut": smaller, "whole": net})
                return times["cut"], times["whole"]
            if self.kind == "megabytes":
                return sum(t.numel() * t.element_size() for t in smaller.state_dict().values()) / 1e6, 0.0
            return float(cost(smaller, *args, **named)[self.kind]), 0.0

        return measure


def _widths(count: int, multiple: int) -> list[int]:
    steps = list(range(multiple, count, multiple))
    if len(steps) >= MOST_WIDTHS:
        steps = [steps[round(i * (len(steps) - 1) / (MOST_WIDTHS - 2))] for i in range(MOST_WIDTHS - 1)]
    return [*steps, count]


def _values(scores: Tensor, widths: Sequence[int]) -> list[float]:
    ordered = torch.sort(scores.double() / scores.double().square().mean().sqrt().clamp_min(1e-300), descending=True)
    sums = ordered.values.cumsum(0)
    return [sums[width - 1].item() for width in widths]


def _top(scores: Tensor, count: int) -> list[int]:
    return sorted(torch.argsort(scores, descending=True, stable=True)[:count].tolist())


class _Layers:
    """Cost of the single layers of a net as a function of the width of every group."""

    def __init__(self, net: nn.Module, layout: Layout, arguments: Arguments, fit: Fit):
        self.units = find_units(net, layout, "channels")
        self.kind, self.timed = fit.kind, fit.timed
        self.table = LayerTimes(fit.engine, None if fit.cache is None else Path(fit.cache)) if fit.timed else None
        self.layers = [m for m in net.modules() if isinstance(m, nn.Linear | _ConvNd)]
        # Of each layer: axis of its weight, group, entries of the axis per channel of the group.
        self.reads: dict[nn.Module, list[tuple[int, str, int]]] = {layer: [] for layer in self.layers}
        self.of_group: dict[str, list[nn.Module]] = {name: [] for name in self.units}
        for name, unit in self.units.items():
            self._add(name, unit)
        self.spatial, self.positions = _shapes(net, self.layers, arguments)

    def _add(self, name: str, unit: Units) -> None:
        for s in unit.slices:
            if s.name == "weight" and s.owner in self.reads and s.pairs is not None:
                self.reads[s.owner].append((s.axis, name, len(s.pairs[0]) // unit.count))
                if s.owner not in self.of_group[name]:
                    self.of_group[name].append(s.owner)

    def cost(self, layer: nn.Module, counts: Mapping[str, int]) -> float:
        """Cost of one layer, the groups being so wide."""
        if layer not in self.spatial:
            return 0.0  # it is not called
        shape = list(layer.weight.shape)  # type: ignore[arg-type, union-attr]
        for axis, name, entries in self.reads[layer]:
            shape[axis] -= entries * (self.units[name].count - counts[name])
        size = float(np.prod(shape))
        if self.table is not None:
            return sum(self.table.milliseconds(layer, shape, spatial) for spatial in self.spatial[layer])
        if self.kind == "multiply_adds":
            return size * self.positions[layer]
        return size * (4e-6 if self.kind == "megabytes" else 1)

    def total(self, counts: Mapping[str, int]) -> float:
        return sum(self.cost(layer, counts) for layer in self.layers)

    def change(self, name: str, width: int, around: Mapping[str, int]) -> float:
        """What it costs more that one group has another width."""
        counts = {**around, name: width}
        return sum(self.cost(layer, counts) - self.cost(layer, around) for layer in self.of_group[name])

    def save(self) -> None:
        if self.table is not None:
            self.table.save()


@torch.no_grad()
def _shapes(net: nn.Module, layers: Sequence[nn.Module], arguments: Arguments) -> tuple[dict, dict]:
    """Input shapes of each layer's calls without the channels, and positions that its weight is applied to."""
    spatial: dict[nn.Module, list[list[int]]] = {}
    positions: dict[nn.Module, int] = {}

    def record(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        shape = list(args[0].shape)
        spatial.setdefault(module, []).append(shape[:-1] if isinstance(module, nn.Linear) else [shape[0], *shape[2:]])
        of = args[0] if isinstance(module, _ConvTransposeNd) else output
        channels = of.shape[-1] if isinstance(module, nn.Linear) else of.shape[1]
        positions[module] = positions.get(module, 0) + of.numel() // channels

    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        net(*arguments[0], **arguments[1])
    finally:
        for hook in hooks:
            hook.remove()
    return spatial, positions


def _between(low: tuple[float, float | None], high: tuple[float, float | None], goal: float) -> float:
    """Where a line through two (capacity, measured) reaches the goal, away from the ends; the middle without them."""
    fraction = 0.5
    if low[1] is not None and high[1] is not None and high[1] > low[1]:
        fraction = min(0.9, max(0.1, (goal - low[1]) / (high[1] - low[1])))
    return low[0] + fraction * (high[0] - low[0])


class _Knapsack:
    """The widths of the largest total value whose cost, linear around narrower widths, is within a capacity."""

    def __init__(
        self,
        layers: _Layers,
        widths: Mapping[str, Sequence[int]],
        values: Mapping[str, Sequence[float]],
        fraction: float,
    ):
        self.widths, self.items = widths, [(name, i) for name in widths for i in range(len(widths[name]))]
        # Both sides of a layer shrink, so each to the square root of the fraction.
        around = {
            name: min(of, key=lambda n: abs(n - min(1.0, fraction) ** 0.5 * of[-1])) for name, of in widths.items()
        }
        self.start = layers.total(around)
        by_group = [[layers.change(name, width, around) for width in of] for name, of in widths.items()]
        # A wider layer that was measured to be faster is noise.
        self.changes = [np.maximum.accumulate(changes) for changes in by_group]
        self.worth = np.array([values[name][i] for name, i in self.items])
        self.least = self.start + sum(changes[0] for changes in self.changes)
        self.most = self.start + sum(changes[-1] for changes in self.changes)

    def solve(self, capacity: float) -> dict[str, int]:
        """Width of each group; the narrowest where nothing fits."""
        one_each = np.array([[float(name == other) for name, _ in self.items] for other in self.widths])
        cost = np.concatenate(self.changes)[None]
        constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(cost, -np.inf, capacity - self.start)]
        solution = milp(-self.worth, integrality=np.ones(len(self.worth)), bounds=(0, 1), constraints=constraints)
        if solution.x is None:
            return {name: of[0] for name, of in self.widths.items()}
        return {name: self.widths[name][i] for (name, i), chosen in zip(self.items, solution.x) if chosen > 0.5}
