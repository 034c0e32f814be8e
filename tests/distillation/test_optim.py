"""Parameter groups and the schedule."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from kd_runner.distillation.optim import layer_factors, multistep, parameter_groups, scale_rates, warmup_cosine
from kd_runner.errors import ConfigError
from kd_runner.models.orion.eva_vit import EvaViT
from kd_runner.pruning.surgery import cut


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


# Layer-wise decay


def vit(depth: int = 3) -> nn.Module:
    net = nn.Module()
    net.backbone = EvaViT(patch_size=4, embed_dim=8, depth=depth, num_heads=2, window_block_indexes=[])
    net.head = nn.Linear(8, 2)
    return net


def rate_of(net: nn.Module, **options: Any) -> dict[str, float]:
    """Name to learning rate in an optimizer of rate 2."""
    factors = layer_factors(net, **options)
    optimizer = scale_rates(torch.optim.AdamW(parameter_groups([net], factors), lr=2.0, weight_decay=0.1))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: rates[id(p)] for name, p in net.named_parameters()}


def test_rates_fall_towards_the_image() -> None:
    rates = rate_of(vit(), module="backbone", blocks="blocks", decay=0.9)
    for name, rate in rates.items():
        power = 0 if name.startswith("head") else 4  # patch embedding and positions
        if ".blocks." in name:
            power = 3 - int(name.split(".")[2])
        assert rate == pytest.approx(2 * 0.9**power), name


def test_what_comes_behind_the_blocks_is_not_slowed() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    rates = rate_of(net, blocks="1", decay=0.5)
    assert [rates[f"{name}.bias"] for name in ("0", "1.0", "1.1", "2")] == [0.25, 0.5, 1.0, 2.0]
    assert rate_of(net, blocks=["1.0", "1.1"], decay=0.5) == rates


def test_decay_of_rates_keeps_the_split_of_weight_decay() -> None:
    net = vit()
    groups = parameter_groups([net], layer_factors(net, module="backbone", blocks="blocks", decay=0.9))
    factors = [group["lr_factor"] for group in groups]
    assert factors == sorted(factors, reverse=True) and len(groups) == 10  # head, three blocks, stem; each in two
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group.get("weight_decay") is None}
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_frozen_blocks_leave_no_group() -> None:
    net = vit()
    net.backbone.blocks[1].requires_grad_(False)
    net.head.requires_grad_(False)
    groups = parameter_groups([net], layer_factors(net, module="backbone", blocks="blocks", decay=0.9))
    assert {group["lr_factor"] for group in groups} == {0.9, 0.9**3, 0.9**4}
    assert all(p.requires_grad for group in groups for p in group["params"])


def test_schedule_and_pruning_keep_the_ratios() -> None:
    net = vit()
    factors = layer_factors(net, module="backbone", blocks="blocks", decay=0.5)
    optimizer = scale_rates(torch.optim.AdamW(parameter_groups([net], factors), lr=1.0))
    schedule = warmup_cosine(optimizer, total_steps=10)
    hidden = {"blocks": "blocks.*", "mlp_in": ["mlp.w1", "mlp.w2"], "mlp_norm": "mlp.ffn_ln", "mlp_out": "mlp.w3"}
    cut(net.backbone, hidden, {"hidden": {"blocks.0": [1, 4], "blocks.2": [0]}}, optimizer=optimizer)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert [group["lr"] / group["lr_factor"] for group in optimizer.param_groups] == pytest.approx([0.5] * 10)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.parameters()}
    again = parameter_groups([net], layer_factors(net, module="backbone", blocks="blocks", decay=0.5))
    for before, after in zip(optimizer.param_groups, again, strict=True):
        assert before["lr_factor"] == after["lr_factor"]
        assert [p.shape for p in before["params"]] == [p.shape for p in after["params"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"module": "bakbone", "blocks": "blocks", "decay": 0.9}, "layer_decay.module: .*'backbone'"),
        ({"module": "backbone", "blocks": "block", "decay": 0.9}, "layer_decay.blocks: .*'blocks'"),
        ({"module": "", "blocks": "head", "decay": 0.9}, "layer_decay.blocks: 'head' holds no blocks"),
        ({"module": "backbone", "blocks": "blocks", "decay": 1.1}, "layer_decay.decay"),
    ],
)
def test_wrong_layer_decay_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layer_factors(vit(), **options)


def test_multistep_divides_the_rate_at_the_end_of_epochs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05)
    schedule = multistep(optimizer, total_steps=240 * 3, epochs=240, milestones=[150, 180, 210])
    rates = {}
    for step in range(240 * 3):
        rates[step] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
    changes = [step for step in range(1, 720) if rates[step] != rates[step - 1]]
    assert changes == [450, 540, 630]  # 3 steps an epoch
    assert [rates[step] for step in (0, *changes)] == pytest.approx([5e-2, 5e-3, 5e-4, 5e-5])
    with pytest.raises(ValueError, match="in rising order"):
        multistep(optimizer, 10, 5, [3, 2])
