"""Which rows an anchor is compared with, and what the memories keep."""

import pytest
import torch

from kd_runner.losses.functional.memory_bank import MemoryBank, Queue, random_rows
from kd_runner.losses.functional.negatives import draw, seeded

CPU = torch.device("cpu")


def bank(size: int = 20, dim: int = 4) -> MemoryBank:
    return MemoryBank(size, dim, 0.5, torch.Generator().manual_seed(0))


def test_every_row_but_the_anchors_own_is_as_likely() -> None:
    index = torch.tensor([0, 7, 19])
    rows = draw(*bank().ordered(), bank().keys_of(index, None), 19_000, seeded(CPU, 1))
    for own, drawn in zip(index, rows):
        counts = torch.bincount(drawn, minlength=20)
        assert counts[own] == 0
        others = counts[torch.arange(20) != own]
        assert others.min() > 850 and others.max() < 1150  # 1000 expected, 5 standard deviations


def test_rows_of_the_same_group_are_never_drawn_once_they_are_known() -> None:
    memory, index = bank(), torch.arange(15)
    groups = index % 3
    keys = memory.keys_of(index, groups)
    memory.learn(index, keys)
    rows = draw(*memory.ordered(), keys, 5000, seeded(CPU, 2))
    for group, drawn in zip(groups, rows):
        assert set(drawn.tolist()) == {row for row in range(20) if row >= 15 or row % 3 != group}
    # Known from now on, also where the batch no longer says it.
    rows = draw(*memory.ordered(), memory.keys_of(index[:1], None), 5000, seeded(CPU, 3))
    assert not set(rows.flatten().tolist()) & set(range(0, 15, 3))


def test_a_bank_of_one_group_has_no_negatives() -> None:
    memory, index = bank(), torch.arange(20)
    memory.learn(index, torch.full((20,), 5))
    with pytest.raises(ValueError, match="all 20 rows belong to group 5"):
        draw(*memory.ordered(), memory.keys_of(index, None), 3, seeded(CPU, 0))


def test_order_follows_keys_that_are_loaded() -> None:
    memory, other = bank(), bank()
    memory.ordered(), other.ordered()
    other.learn(torch.arange(20), torch.arange(20) % 4)
    memory.load_state_dict(other.state_dict())
    assert all(torch.equal(mine, expected) for mine, expected in zip(memory.ordered(), other.ordered()))


def test_draws_depend_on_their_numbers_alone() -> None:
    keys = bank().keys_of(torch.arange(4), None)
    one, two, three = (draw(*bank().ordered(), keys, 50, seeded(CPU, *i)) for i in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(one, two) and not torch.equal(one, three)


def test_a_queue_keeps_the_last_embeddings_and_who_they_were() -> None:
    queue = Queue(5, 2, torch.Generator().manual_seed(0))
    for first in (0, 3, 6):
        index = torch.arange(first, first + 3)
        vectors = index[:, None].float().expand(3, 2)
        queue.write(index, queue.keys_of(index, index % 2 if first == 6 else None), vectors, -vectors)
    assert sorted(queue.student[:, 0].tolist()) == [4, 5, 6, 7, 8]
    assert torch.equal(queue.teacher, -queue.student)
    held = dict(zip(queue.student[:, 0].tolist(), queue.keys.tolist()))
    assert held == {4: -5, 5: -6, 6: 0, 7: 1, 8: 0}  # -1 - index, or the group
    rows = draw(*queue.ordered(), queue.keys_of(torch.tensor([5]), None), 500, seeded(CPU, 0))
    assert set(queue.student[rows[0], 0].tolist()) == {4, 6, 7, 8}
    queue.write(torch.arange(9), torch.arange(9), torch.zeros(9, 2), torch.zeros(9, 2))  # more than it holds
    assert sorted(queue.keys.tolist()) == [4, 5, 6, 7, 8]


def test_every_seed_has_a_stream_of_its_own() -> None:
    seeds = {seeded(torch.device("cpu"), 3, number).initial_seed() for number in range(1000)}
    assert len(seeds) == 1000


def test_rows_begin_evenly_in_their_cube() -> None:
    """Wu et al.'s bounds, the square root of 3 / D on both sides: rows of length 1 in the mean."""
    rows = random_rows(500, 12, torch.Generator().manual_seed(0))
    assert rows.abs().max() <= 0.5 and rows.min() < -0.49 and rows.max() > 0.49
    assert abs(rows.mean()) < 0.02 and (rows**2).sum(1).mean().item() == pytest.approx(1.0, abs=0.05)
