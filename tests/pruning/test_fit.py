"""The most important channels that fit into a budget."""

import itertools
import math

import pytest
import torch
from torch import nn

from kd_runner.profiling.layers import LayerTimes
from kd_runner.pruning.fit import Fit
from kd_runner.pruning.layout import Layout
from kd_runner.pruning.report import cost
from kd_runner.pruning.surgery import cut
from kd_runner.pruning.trace import Traced


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 2, 1)
    ).eval()


X = torch.randn(1, 3, 9, 9)
ARGUMENTS = ((X,), {})


@pytest.fixture(scope="module")
def layout() -> Layout:
    return Traced().layout(net(), (X,))


SCORES = {"0": torch.linspace(1, 2, 12), "2": torch.linspace(3, 1, 16)}


def fitted(layout, **budget):
    return Fit(multiple=4, **budget).choose(net(), layout, SCORES, ARGUMENTS)


@pytest.mark.parametrize(("kind", "target"), [("parameters", 800), ("multiply_adds", 40_000), ("megabytes", 0.005)])
def test_a_budget_is_met_and_hardly_anything_better_fits(layout, kind, target):
    def size(counts):
        smaller = net()
        cut(smaller, layout, {"channels": {g: range(n) for g, n in counts.items()}})
        sizes = cost(smaller, X) | {"megabytes": sum(4 * p.numel() for p in smaller.parameters()) / 1e6}
        return sizes[kind]

    def value(counts):  # of the best channels, each group's scores divided by their root mean square
        return sum(
            (SCORES[g].sort(descending=True).values[:n] / SCORES[g].square().mean().sqrt()).sum().item()
            for g, n in counts.items()
        )

    kept = fitted(layout, **{kind: target}, tolerance=0.25)
    counts = {g: len(indices) for g, indices in kept.items()}
    assert size(counts) <= 1.25 * target
    all_counts = [dict(zip(("0", "2"), c)) for c in itertools.product((4, 8, 12), (4, 8, 12, 16))]
    rivals = [other for other in all_counts if size(other) <= size(counts)]
    assert value(counts) >= 0.9 * max(map(value, rivals))  # the prediction is of first order
    assert kept["2"] == list(range(counts["2"])) and kept["0"][-1] == 11  # the most important ones of each group


def test_milliseconds_are_measured_and_corrected(layout, monkeypatch):
    """The engine takes twice as long as the table says of its layers, with an overhead that it does not know."""
    monkeypatch.setattr(LayerTimes, "milliseconds", lambda self, layer, weight, spatial: math.prod(weight) / 100)

    def milliseconds(nets):
        return {name: 10 + sum(p.numel() for p in part.parameters()) / 50 for name, part in nets.items()}

    fit = Fit(latency_ratio=0.5, multiple=1, rounds=8, tolerance=0.05)
    kept = fit.choose(net(), layout, SCORES, ARGUMENTS, milliseconds)
    smaller = net()
    cut(smaller, layout, {"channels": kept})
    times = milliseconds({"cut": smaller, "whole": net()})
    assert times["cut"] / times["whole"] == pytest.approx(0.5, rel=0.05)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="budget: give one of latency_ms"):
        Fit()
    with pytest.raises(ValueError, match="not latency_ms, parameters"):
        Fit(latency_ms=1.0, parameters=3)
    with pytest.raises(ValueError, match=r"engine: no engine 'torsh'\. Did you mean 'torch'"):
        Fit(latency_ms=1.0, engine="torsh")
    with pytest.raises(ValueError, match="latency_ratio: 2 is no budget"):
        Fit(latency_ratio=2)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_layer_times_are_measured_once(engine, tmp_path):
    layers = [
        (nn.Conv2d(8, 6, 3, stride=2, padding=1), [4, 8, 3, 3], [1, 9, 9]),
        (nn.Conv2d(8, 8, 3, groups=8), [5, 1, 3, 3], [1, 9, 9]),
        (nn.ConvTranspose2d(8, 6, 2, stride=2), [8, 3, 2, 2], [1, 4, 5]),
        (nn.Linear(8, 6), [3, 8], [2, 7]),
    ]
    table = LayerTimes(engine, tmp_path, repeats=1)
    times = [table.milliseconds(*layer) for layer in layers]
    assert all(0 < time < 1000 for time in times)
    table.save()
    again = LayerTimes(engine, tmp_path)
    assert [again.milliseconds(*layer) for layer in layers] == times
