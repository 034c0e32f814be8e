"""The assignment against all assignments, and its edges."""

from itertools import permutations

import torch

from kd_runner.losses.functional.hungarian import match


def test_every_layer_and_sample_gets_its_cheapest_assignment() -> None:
    torch.manual_seed(0)
    cost, mask = torch.randn(2, 3, 5, 4), torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]]).bool()
    pairs = match(cost, mask)
    for layer in range(2):
        for sample in range(3):
            objects = mask[sample].nonzero()[:, 0].tolist()
            mine = (pairs.layer == layer) & (pairs.sample == sample)
            assert sorted(pairs.target[mine].tolist()) == objects
            assert len(set(pairs.query[mine].tolist())) == len(objects)
            total = cost[layer, sample, pairs.query[mine], pairs.target[mine]].sum()
            tried = [
                sum(cost[layer, sample, q, o].item() for q, o in zip(chosen, objects))
                for chosen in permutations(range(5), len(objects))
            ]
            assert abs(total.item() - min(tried)) < 1e-5


def test_repeats_give_every_object_that_many_queries() -> None:
    pairs = match(torch.rand(1, 1, 9, 3), torch.tensor([[True, False, True]]), repeats=4)
    assert torch.bincount(pairs.target, minlength=3).tolist() == [4, 0, 4]
    assert len(pairs.query.unique()) == 8


def test_more_objects_than_queries_leaves_some_without() -> None:
    pairs = match(torch.tensor([[[[3.0, 1.0, 2.0]]]]), torch.ones(1, 3).bool())
    assert (pairs.query.tolist(), pairs.target.tolist()) == ([0], [1])


def test_costs_that_are_not_finite_are_the_last_choice() -> None:
    cost = torch.tensor([[[[float("nan")], [float("inf")], [5.0]]]])
    assert match(cost, torch.ones(1, 1).bool()).query.tolist() == [2]


def test_no_objects_at_all() -> None:
    pairs = match(torch.zeros(2, 1, 3, 0), torch.zeros(1, 0).bool())
    assert all(part.shape == (0,) and part.dtype == torch.int64 for part in pairs)
