"""Parameter groups and the schedule."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from kd_runner.optim import parameter_groups, warmup_cosine


def rates(steps: int, **options: float) -> list[float]:
    """Learning rate that each optimizer step uses, of 1, and the one after the last."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_cosine(optimizer, total_steps=steps, **options)
    used = []
    for _ in range(steps + 1):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return used


def test_vectors_are_not_decayed_and_weights_are() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(parameter_groups([net]), weight_decay=0.1)
    weights, vectors = optimizer.param_groups
    assert {id(p) for p in weights["params"]} == {id(net[0].weight), id(net[2].weight)}
    assert {id(p) for p in vectors["params"]} == {id(p) for p in (net[0].bias, net[1].weight, net[1].bias, net[2].bias)}
    assert (weights["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)


def test_frozen_parameters_are_left_out_and_all_modules_are_in() -> None:
    frozen, one, other = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2), nn.Conv2d(2, 2, 1, bias=False)
    groups = parameter_groups([nn.Sequential(frozen, one), other])
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for m in (one, other) for p in m.parameters()}


def test_the_cosine_is_that_of_the_paper() -> None:
    expected = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 20)) for step in range(21)]
    assert rates(20, final_factor=0.1) == pytest.approx(expected)


def test_the_warm_up_is_linear_then_the_rate_falls_from_its_peak() -> None:
    used = rates(100, warmup_steps=4)
    assert used[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(before > after for before, after in pairwise(used[4:]))
    assert used[100] == pytest.approx(0)


def test_the_warm_up_takes_a_tenth_of_a_short_run_at_most() -> None:
    used = rates(20, warmup_steps=500)
    assert used.index(max(used)) == 2


def test_no_step_has_a_rate_of_zero() -> None:
    """Else it would be a step for nothing."""
    for steps in (1, 2, 5, 30):
        assert min(rates(steps, warmup_steps=3)[:steps]) > 0
