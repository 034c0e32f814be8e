"""An optimizer goes on after a cut as if the net had always been small."""

import copy

import pytest
import torch

from kd_runner.pruning.surgery import cut

KEPT = {"heads": {"blocks.0": [0, 3], "blocks.1": [1]}, "hidden": {"blocks.0": [1, 2, 22], "blocks.1": list(range(20))}}
OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
}


def groups(net):
    return [
        {"params": [p for p in net.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]


def give_gradients(net, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_cutting_and_stepping_commute(case, name):
    """These optimizers work element by element: step then cut equals cut then step with the same gradients, cut."""
    kept = (
        KEPT
        if case.name != "timm_swin"
        else {"heads": {"layers.1.blocks.0": [3, 1]}, "hidden": {"layers.0.blocks.1": [5]}}
    )
    optimizer = OPTIMIZERS[name](groups(case.net))
    for seed in (1, 2):
        give_gradients(case.net, seed)
        optimizer.step()
    other_net, other = copy.deepcopy((case.net, optimizer))

    give_gradients(case.net, 3)
    optimizer.step()
    cut(case.net, case.layout, kept, optimizer=optimizer)

    give_gradients(other_net, 3)
    cut(other_net, case.layout, kept, optimizer=other)
    other.step()
    for (path, p), q in zip(case.net.named_parameters(), other_net.parameters()):
        torch.testing.assert_close(q, p, msg=path)
        assert {k: v.shape for k, v in other.state[q].items() if v.dim()} == {
            k: p.shape for k, v in optimizer.state[p].items() if v.dim()
        }


def test_groups_and_state_hold_exactly_the_parameters_of_the_net(eva):
    optimizer = torch.optim.AdamW(groups(eva.net))
    give_gradients(eva.net, 1)
    optimizer.step()
    cut(eva.net, eva.layout, KEPT, optimizer=optimizer)
    for group, expected in zip(optimizer.param_groups, groups(eva.net), strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in expected["params"]]  # A checkpoint counts in order.
    assert {id(p) for p in optimizer.state} == {id(p) for p in eva.net.parameters()}
    assert all(state["step"] == 1 for state in optimizer.state.values())
    fresh = torch.optim.AdamW(groups(eva.net))
    fresh.load_state_dict(optimizer.state_dict())  # What a checkpoint does.


def test_parameters_outside_the_optimizer_and_without_state_are_cut_too(eva):
    optimizer = torch.optim.AdamW([*eva.net.blocks[1].mlp.parameters()])
    cut(eva.net, eva.layout, KEPT, optimizer=optimizer)
    assert eva.net.blocks[0].mlp.w1.out_features == 3 and not optimizer.state
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in eva.net.blocks[1].mlp.parameters()}


def test_state_of_another_shape_is_refused_before_anything_is_cut(eva):
    optimizer = torch.optim.Adafactor(eva.net.parameters())
    give_gradients(eva.net, 1)
    optimizer.step()
    with pytest.raises(ValueError, match="Adafactor keeps row_var"):
        cut(eva.net, eva.layout, KEPT, optimizer=optimizer)
    assert eva.net.blocks[0].mlp.w1.weight.shape == (24, 32)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in eva.net.parameters()}
