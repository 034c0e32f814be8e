"""Scores against finite differences, loops and symmetries."""

import pytest
import torch

from kd_runner.pruning.layout import find_units
from kd_runner.pruning.masks import masked
from kd_runner.pruning.scores import Gradient, Magnitude, Random, Taylor


def test_gradient_is_the_slope_of_the_loss_along_a_factor(case):
    """Central differences, norms over units included; |.| per batch, mean over batches."""
    batches, expected = [case.image, case.image[:1] * 0.5], []
    scores = Gradient()(case.net, case.layout, loss=case.loss, batches=batches)
    kind, block, unit = ("heads", "layers.1.blocks.0", 2) if case.name == "timm_swin" else ("hidden", "blocks.1", 5)
    count = len(scores[kind][block])
    for image in batches:
        values = []
        for step in (1e-5, -1e-5):
            mask = torch.ones(count, dtype=torch.float64)
            mask[unit] += step
            with torch.no_grad(), masked(case.net, case.layout, {kind: {block: mask}}):
                values.append(case.loss(image))
        expected.append(abs(values[0] - values[1]).item() / 2e-5)
    assert scores[kind][block][unit].item() == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_taylor_is_gradient_for_single_images_without_a_norm(rebuild):
    case = rebuild("timm_eva_fused")
    batches = list(case.image.split(1))
    taylor = Taylor()(case.net, case.layout, loss=case.loss, batches=batches)
    gradient = Gradient()(case.net, case.layout, loss=case.loss, batches=batches)
    torch.testing.assert_close(taylor, gradient)
    both = Gradient()(case.net, case.layout, loss=case.loss, batches=[case.image])
    assert all((both["heads"][b] < 2 * s).all() for b, s in taylor["heads"].items())  # Samples cancel in a batch.


def test_taylor_by_a_loop_over_windows_and_heads(eva):
    """Block 0 has windows of 3 x 3 on a 4 x 4 grid: four rows per image; padding takes part with gradient zero."""
    seen = {}
    hook = eva.net.blocks[0].attn.head_outputs.register_forward_hook(
        lambda m, a, out: (out.retain_grad(), seen.update(x=out))[0]
    )
    eva.loss(eva.image).backward()
    hook.remove()
    product = seen["x"].detach() * seen["x"].grad
    expected = [product[:, :, 8 * h : 8 * h + 8].sum((1, 2)).abs().sum() / 8 for h in range(4)]
    scores = Taylor()(eva.net, eva.layout, loss=eva.loss, batches=[eva.image])
    torch.testing.assert_close(scores["heads"]["blocks.0"], torch.stack(expected).float())


@pytest.mark.parametrize("score", [Gradient(), Taylor()])
def test_scoring_leaves_the_net_as_it_was_and_works_on_a_frozen_one(case, score):
    case.net.train().requires_grad_(False)
    block = next(iter(find_units(case.net, case.layout, "heads")))
    case.net.get_submodule(block).eval()
    modes = [m.training for m in case.net.modules()]
    scores = score(case.net, case.layout, loss=case.loss, batches=[case.image])
    assert [m.training for m in case.net.modules()] == modes
    assert all(p.grad is None and not p.requires_grad for p in case.net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in case.net.modules())
    for kind, of_blocks in scores.items():
        for b, unit in find_units(case.net, case.layout, kind).items():
            assert of_blocks[b].shape == (unit.count,) and (of_blocks[b] > 0).all()


@pytest.mark.parametrize("score", [Gradient(), Taylor()])
def test_scoring_is_not_disturbed_by_drop_path(eva, score):
    eva.net.blocks[1].drop_path.p = 0.9
    expected = score(eva.net, eva.layout, loss=eva.loss, batches=[eva.image])
    eva.net.train()
    torch.testing.assert_close(score(eva.net, eva.layout, loss=eva.loss, batches=[eva.image]), expected)


def test_magnitude_of_a_head_is_the_size_of_its_two_products(case):
    scores = Magnitude()(case.net, case.layout)
    block = list(find_units(case.net, case.layout, "heads"))[-1]
    unit = find_units(case.net, case.layout, "heads")[block]
    w, rows = (
        unit.width,
        [torch.cat((x, torch.zeros(len(x), 1) if b is None else b[:, None]), 1) for x, b in unit.made_by],
    )
    q, k, v = (x[w : 2 * w] for x in rows)  # head 1
    out = unit.out.weight if not unit.norms else unit.out.weight * unit.norms[0].module.weight
    expected = ((q.T @ k).norm() * (out[:, w : 2 * w] @ v).norm()).sqrt()
    assert scores["heads"][block][1].item() == pytest.approx(expected.item(), rel=1e-5)


def test_magnitude_does_not_see_a_change_of_scale_that_the_net_does_not_see(rebuild):
    case = rebuild("timm_vit")
    before, out = Magnitude()(case.net, case.layout), case.net(case.image)
    block = case.net.blocks[0]
    with torch.no_grad():
        block.attn.qkv.weight[:8] *= 10  # q of head 0
        block.attn.qkv.bias[:8] *= 10
        block.attn.qkv.weight[32:40] /= 10  # its k
        block.attn.qkv.bias[32:40] /= 10
    torch.testing.assert_close(case.net(case.image), out)
    torch.testing.assert_close(Magnitude()(case.net, case.layout), before)
    with torch.no_grad():
        block.attn.proj.weight[:, 8:16] = 0
        block.mlp.fc2.weight[:, 3] = 0
    after = Magnitude()(case.net, case.layout)
    assert after["heads"]["blocks.0"].argmin() == 1 and after["hidden"]["blocks.0"].argmin() == 3


def test_a_dead_unit_scores_lowest(case):
    """Its outgoing weights are zero: no score that looks at them may prefer it."""
    with torch.no_grad():
        for kind, unit in (("heads", 1), ("hidden", 3)):
            for u in find_units(case.net, case.layout, kind).values():
                u.out.weight[:, unit * u.width : (unit + 1) * u.width] = 0
    for score in (Magnitude(), Taylor()):
        scores = score(case.net, case.layout, loss=case.loss, batches=[case.image])
        assert all(s.argmin() == 1 for s in scores["heads"].values())
        assert all(s.argmin() == 3 for s in scores["hidden"].values())


def test_random_is_repeatable(eva):
    first, same, other = (Random(seed)(eva.net, eva.layout) for seed in (1, 1, 2))
    torch.testing.assert_close(first, same, rtol=0, atol=0)
    assert not torch.equal(first["hidden"]["blocks.0"], other["hidden"]["blocks.0"])
    assert not torch.equal(first["hidden"]["blocks.0"], first["hidden"]["blocks.1"])


def test_num_batches_bounds_the_data(eva):
    seen = []
    Taylor(num_batches=2)(
        eva.net, eva.layout, loss=lambda x: (seen.append(1), eva.loss(x))[1], batches=(eva.image for _ in range(9))
    )
    assert len(seen) == 2


@pytest.mark.parametrize("score", [Gradient(), Taylor()])
def test_what_makes_no_score_is_said(eva, score):
    with pytest.raises(ValueError, match="needs data"):
        score(eva.net, eva.layout)
    with pytest.raises(ValueError, match="no batches"):
        score(eva.net, eva.layout, loss=eva.loss)
    with pytest.raises(ValueError, match=r"does not depend on blocks\.1 \(heads\)"):
        score(
            eva.net,
            eva.layout,
            loss=lambda x: eva.net.blocks[0](x, rope(eva)).sum(),
            batches=[torch.randn(1, 4, 4, 32).double()],
        )


def rope(case):
    from kd_runner.models.orion.eva_vit import rope_tables

    return rope_tables(3, 3, case.net.head_dim)
