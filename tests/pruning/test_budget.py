"""How many and which: fractions, multiples, floors, ranking."""

import pytest
import torch

from kd_runner.pruning.budget import Budget


def scores(*rows):
    return {f"b{i}": torch.tensor(row, dtype=torch.float32) for i, row in enumerate(rows)}


def counts(kept):
    return [len(indices) for indices in kept.values()]


def test_per_block_ranking_keeps_the_best_of_each_block_in_order():
    kept = Budget(0.5).keep(scores([1, 4, 3, 2], [0.1, 0.2, 0.4, 0.3]))
    assert kept == {"b0": [1, 2], "b1": [2, 3]}


@pytest.mark.parametrize("budget", [Budget(0.0), Budget(0.0, ranking="global", multiple=64), Budget(0.0, multiple=64)])
def test_zero_ratio_is_the_identity(budget):
    kept = budget.keep({"a": torch.rand(2730), "b": torch.rand(16)})
    assert kept == {"a": list(range(2730)), "b": list(range(16))}


@pytest.mark.parametrize(
    ("ratio", "multiple", "expected"),
    [
        (0.5, 1, 1365),
        (0.503, 1, 1357),
        (0.5, 8, 1368),
        (0.5, 64, 1344),
        (0.25, 64, 2048),
        (0.99, 64, 64),
        (0.001, 64, 2730),
    ],
)
def test_widths_of_the_full_net(ratio, multiple, expected):
    assert counts(Budget(ratio, multiple=multiple).keep({"b": torch.rand(2730)})) == [expected]
    assert counts(Budget(0.5).keep({"b": torch.rand(16)})) == [8]


def test_global_ranking_ranks_over_blocks_after_normalizing_each():
    peaked, flat = [10.0, 9, 1, 1, 1, 1, 1, 1], [3.0, 3, 3, 3, 3, 3, 3, 3]
    assert counts(Budget(0.5, ranking="global").keep(scores(peaked, flat))) == [2, 6]
    scaled = [1000 * s for s in flat]  # A block's scale says nothing about its worth.
    assert counts(Budget(0.5, ranking="global").keep(scores(peaked, scaled))) == [2, 6]
    narrow, wide = [4.0, 3], [4.0, 3] * 8  # Nor does its width.
    assert counts(Budget(0.5, ranking="global").keep(scores(narrow, wide))) == [1, 8]


def test_global_ranking_keeps_the_floor_and_the_total():
    values = {f"b{i}": torch.rand(64) ** (i + 1) for i in range(6)}
    kept = counts(Budget(0.6, ranking="global", floor=0.3, multiple=8).keep(values))
    assert min(kept) >= 24 and all(n % 8 == 0 for n in kept) and len(set(kept)) > 1
    assert abs(sum(kept) - 0.4 * 6 * 64) <= 4


def test_fractions_that_binary_fractions_miss_are_counted_right():
    values = scores([1.0] * 100, [1e-3] * 99 + [1.0])
    assert counts(Budget(0.9, ranking="global", floor=0.1).keep(values)) == [10, 10]
    assert min(counts(Budget(0.8, ranking="global", floor=0.07).keep(values))) == 7


def test_global_ranking_takes_exactly_the_top_where_nothing_binds():
    values = {f"b{i}": torch.rand(50) + 0.1 for i in range(4)}
    kept = Budget(0.37, ranking="global").keep(values)
    normed = torch.cat([s / s.square().mean().sqrt() for s in values.values()])
    top = sorted(normed.topk(round(0.63 * 200)).indices.tolist())
    assert [50 * i + j for i, indices in enumerate(kept.values()) for j in indices] == top


def test_ratio_refers_to_the_unpruned_width():
    sizes = {"b0": 16, "b1": 16}
    later = scores([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    assert counts(Budget(0.5).keep(later, sizes=sizes)) == [8, 8]
    assert sum(counts(Budget(0.5, ranking="global").keep(later, sizes=sizes))) == 16
    assert counts(Budget(0.5).keep(later, sizes=sizes, fraction=0.5)) == [12, 12]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.0}, "ratio"),
        ({"ratio": -0.1}, "ratio"),
        ({"ratio": 0.5, "ranking": "globl"}, "Did you mean 'global'"),
        ({"ratio": 0.5, "floor": 0.6}, "floor"),
        ({"ratio": 0.5, "multiple": 0}, "multiple"),
    ],
)
def test_bad_budgets_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Budget(**arguments)
