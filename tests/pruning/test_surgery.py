"""A cut net is the masked net, for every family; what is not cut stays."""

import copy

import pytest
import torch
from torch import nn

from kd_runner.pruning.layout import KINDS, find_units
from kd_runner.pruning.masks import masked
from kd_runner.pruning.surgery import cut


def some_kept(case, kinds=KINDS, seed=0):
    """Another random selection in every block, about half."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for kind in kinds:
        units = find_units(case.net, case.layout, kind)
        kept[kind] = {
            b: torch.randperm(u.count, generator=generator)[: max(1, u.count // 2 + i % 2)].tolist()
            for i, (b, u) in enumerate(units.items())
        }
    return kept


def as_masks(case, kept):
    masks = {kind: {} for kind in kept}
    for kind, of_blocks in kept.items():
        for block, unit in find_units(case.net, case.layout, kind).items():
            masks[kind][block] = torch.zeros(unit.count, dtype=torch.float64)
            masks[kind][block][of_blocks[block]] = 1.0
    return masks


@pytest.mark.parametrize("kinds", [("heads",), ("hidden",), KINDS], ids=["heads", "hidden", "both"])
@torch.no_grad()
def test_cut_equals_masked(case, kinds):
    kept = some_kept(case, kinds)
    whole = case.net(case.image)
    with masked(case.net, case.layout, as_masks(case, kept)):
        expected = case.net(case.image)
    assert (expected - whole).abs().max() > 1e-2 * whole.abs().max()
    before = sum(p.numel() for p in case.net.parameters())
    cut(case.net, case.layout, kept)
    assert sum(p.numel() for p in case.net.parameters()) < before
    torch.testing.assert_close(case.net(case.image), expected, rtol=0, atol=1e-9 * expected.abs().max().item())


@torch.no_grad()
def test_masked_is_the_net_with_the_reading_weights_at_zero_where_no_norm_joins_the_units(rebuild):
    case = rebuild("timm_swin")  # An oracle that knows nothing of masks: zero columns of proj and fc2.
    kept = some_kept(case)
    with masked(case.net, case.layout, as_masks(case, kept)):
        expected = case.net(case.image)
    for name, block in case.net.named_modules():
        if name in kept["heads"]:
            width = block.attn.proj.in_features // block.attn.num_heads
            gone = set(range(block.attn.num_heads)) - set(kept["heads"][name])
            for h in gone:
                block.attn.proj.weight[:, h * width : (h + 1) * width] = 0
            block.mlp.fc2.weight[:, sorted(set(range(block.mlp.fc2.in_features)) - set(kept["hidden"][name]))] = 0
    torch.testing.assert_close(case.net(case.image), expected)


@torch.no_grad()
def test_masked_norm_is_the_norm_of_the_kept_units(eva):
    """Written out for one MLP: w3(LayerNorm over the kept units only)."""
    mlp, keep = eva.net.blocks[1].mlp, [1, 4, 5, 20]
    x, mask = torch.randn(5, 32, dtype=torch.float64), torch.zeros(24, dtype=torch.float64)
    mask[keep] = 1
    hidden = (nn.functional.silu(mlp.w1(x)) * mlp.w2(x))[:, keep]
    normed = nn.functional.layer_norm(hidden, (4,), mlp.ffn_ln.weight[keep], mlp.ffn_ln.bias[keep], 1e-6)
    with masked(eva.net, eva.layout, {"hidden": {"blocks.1": mask}}):
        torch.testing.assert_close(mlp(x), normed @ mlp.w3.weight[:, keep].T + mlp.w3.bias)


@torch.no_grad()
def test_keeping_all_touches_nothing(case):
    before = dict(case.net.named_parameters())
    out = case.net(case.image)
    cut(
        case.net,
        case.layout,
        {k: {b: range(u.count) for b, u in find_units(case.net, case.layout, k).items()} for k in KINDS},
    )
    assert all(p is before[name] for name, p in case.net.named_parameters())
    assert torch.equal(case.net(case.image), out)


def test_a_cut_net_trains_copies_and_is_cut_again(case):
    cut(case.net, case.layout, some_kept(case))
    net = copy.deepcopy(case.net).train()
    net(case.image).sum().backward()
    units = {kind: find_units(net, case.layout, kind) for kind in KINDS}
    for unit in (*units["heads"].values(), *units["hidden"].values()):
        for s in unit.slices:
            assert not isinstance(s.tensor, nn.Parameter) or s.tensor.grad.shape == s.tensor.shape
    case.net = net.eval()
    again = some_kept(case, seed=1)
    with masked(net, case.layout, as_masks(case, again)):
        expected = net(case.image)
    cut(net, case.layout, again)
    torch.testing.assert_close(net(case.image), expected)


def test_frozen_stays_frozen_and_gradients_are_cut_along(eva):
    eva.net.blocks[0].attn.q_proj.weight.requires_grad_(False)
    eva.loss(eva.image).backward()
    grad = eva.net.blocks[0].mlp.w1.weight.grad
    cut(eva.net, eva.layout, {"heads": {"blocks.0": [1]}, "hidden": {"blocks.0": [7, 3]}})  # order is kept
    assert not eva.net.blocks[0].attn.q_proj.weight.requires_grad
    assert torch.equal(eva.net.blocks[0].mlp.w1.weight.grad, grad[[3, 7]])
    mlp = eva.net.blocks[0].mlp
    assert (mlp.w1.out_features, mlp.ffn_ln.normalized_shape, mlp.w3.in_features) == (2, (2,), 2)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"heads": {"blocks.0": []}}, "at least one"),
        ({"heads": {"blocks.0": [0, 0]}}, "different indices below 4"),
        ({"hidden": {"blocks.1": [24]}}, "different indices below 24"),
        ({"hidden": {"block.1": [2]}}, "Did you mean 'blocks.1'"),
        ({"head": {}}, "Did you mean 'heads'"),
    ],
)
def test_bad_indices_are_refused_before_anything_is_cut(eva, kept, message):
    with pytest.raises(ValueError, match=message):
        cut(eva.net, eva.layout, {"hidden": {"blocks.0": [1]}, **kept})
    assert eva.net.blocks[0].mlp.w1.out_features == 24


def test_tied_tensors_are_refused(eva):
    eva.net.blocks[1].mlp.w1 = eva.net.blocks[0].mlp.w1
    eva.net.blocks[1].attn.q_bias = eva.net.blocks[0].attn.q_bias
    with pytest.raises(ValueError, match=r"shared by blocks\.0\.attn\.q_bias and blocks\.1\.attn\.q_bias"):
        cut(eva.net, eva.layout, {"heads": {"blocks.0": [0]}})
    with pytest.raises(ValueError, match="shared"):
        cut(eva.net, eva.layout, {"hidden": {"blocks.0": [0]}})
