"""A round from configuration to a smaller net."""

import pytest
import torch

from kd_runner.pruning import spec as specs
from kd_runner.pruning.budget import Budget
from kd_runner.pruning.prune import prune
from kd_runner.pruning.schedule import Schedule
from kd_runner.pruning.scores import Gradient, Magnitude, Random, Taylor


def refuse(*args, **kwargs):
    raise AssertionError("nothing is to be removed, so nothing is to be scored")


@pytest.mark.parametrize("budget", [Budget(0.0), Budget(0.0, ranking="global", floor=0.5, multiple=8), None])
def test_zero_ratio_is_the_identity(case, budget):
    before, out = dict(case.net.named_parameters()), case.net(case.image)
    spec = prune(case.net, layout=case.layout, score=refuse, heads=budget, hidden=budget)
    assert all(p is before[name] for name, p in case.net.named_parameters())
    assert torch.equal(case.net(case.image), out)
    assert spec == specs.whole(case.net, case.layout)


@pytest.mark.parametrize(
    ("score", "ranking"), [(Magnitude(), "per_block"), (Gradient(), "per_block"), (Taylor(), "global")]
)
def test_every_net_is_pruned_from_its_layout_alone(case, score, ranking):
    budget = Budget(0.5, ranking=ranking)
    spec = prune(
        case.net, layout=case.layout, score=score, heads=budget, hidden=budget, loss=case.loss, batches=[case.image]
    )
    for kind in ("heads", "hidden"):
        assert sum(specs.counts(spec, kind)) == sum(entry["of"] for entry in spec[kind].values()) // 2
    assert case.net(case.image).isfinite().all()


def test_taylor_hurts_less_than_random_and_the_worst(rebuild):
    """What the score is for: after cutting a quarter of the units the output has moved least."""

    def moved(score):
        case = rebuild("timm_vit")
        out = case.net(case.image)
        prune(
            case.net, layout=case.layout, score=score, hidden=Budget(0.25), loss=case.loss, batches=case.image.split(1)
        )
        return (case.net(case.image) - out).square().sum().item()

    def worst(*args, **kwargs):
        return {kind: {b: -s for b, s in of.items()} for kind, of in Taylor()(*args, **kwargs).items()}

    assert moved(Taylor()) < min(moved(worst), sum(moved(Random(seed)) for seed in range(3)) / 3)


def test_progressive_rounds_with_an_optimizer_reach_the_budget(eva):
    schedule, spec, losses = Schedule(start=1, end=3, rounds=3, shape="cubic"), None, []
    optimizer = torch.optim.AdamW(eva.net.train().parameters(), lr=1e-3)
    for epoch in range(5):
        if epoch in schedule.epochs():
            spec = prune(
                eva.net, layout=eva.layout, score=Taylor(num_batches=1), heads=Budget(0.5),
                hidden=Budget(0.5, multiple=4), fraction=schedule.fraction(epoch), spec=spec, optimizer=optimizer,
                loss=eva.loss, batches=[eva.image],
            )  # fmt: skip
        optimizer.zero_grad()
        loss = eva.net(eva.image).square().mean()
        loss.backward()
        optimizer.step()
        losses.append((specs.counts(spec, "heads"), specs.counts(spec, "hidden")) if spec else None)
    assert losses[0] is None and losses[1:] == [
        ([3, 3], [16, 16]),
        ([2, 2], [12, 12]),
        ([2, 2], [12, 12]),
        ([2, 2], [12, 12]),
    ]
    assert {id(p) for p in eva.net.parameters()} == {id(p) for p in optimizer.state}


def test_missing_parts_of_the_layout_are_named(eva):
    layout = {key: value for key, value in eva.layout.items() if key != "proj"}
    with pytest.raises(ValueError, match=r"^heads: .*proj"):
        prune(eva.net, layout=layout, score=Random(), heads=Budget(0.5))
    prune(eva.net, layout=layout, score=Magnitude(), hidden=Budget(0.5))
    with pytest.raises(ValueError, match="fraction"):
        prune(eva.net, layout=layout, score=Random(), hidden=Budget(0.5), fraction=1.5)
