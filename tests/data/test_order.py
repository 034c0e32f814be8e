"""Which samples make up which batch."""

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kd_runner.data.order import EvalShardSampler, ResumableBatchSampler, SeededDataset, _permutation, stream
from kd_runner.errors import ConfigError


def order(
    sizes: tuple[int, ...] = (7, 11),
    batch_sizes: tuple[int, ...] = (4, 2),
    steps: int = 3,
    seed: int = 5,
    reached: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> ResumableBatchSampler:
    return ResumableBatchSampler(sizes, batch_sizes, steps, seed, lambda: reached, rank, ranks)


def test_a_stream_is_a_row_of_permutations() -> None:
    drawn = stream(7, seed=3, first=0, count=28)
    rounds = [drawn[i : i + 7] for i in range(0, 28, 7)]
    assert all(sorted(r) == list(range(7)) for r in rounds)
    assert len({tuple(r) for r in rounds}) == 4  # each in another order


@pytest.mark.parametrize(("first", "count"), [(0, 5), (5, 9), (6, 1), (20, 30)])
def test_a_stream_may_be_entered_anywhere(first: int, count: int) -> None:
    assert stream(7, 3, first, count) == stream(7, 3, 0, first + count)[first:]


def test_every_sample_is_drawn_equally_often() -> None:
    """Over 7 steps of 4 + 2 from 7 and 11: each labeled one 4 times, the others 1 or 2 times."""
    counts = Counter(index for step in range(7) for index, _ in order().batch(step))
    assert [counts[i] for i in range(7)] == [4] * 7
    assert sum(counts[i] for i in range(7, 18)) == 14
    assert {counts[i] for i in range(7, 18)} == {1, 2}


def test_a_batch_depends_on_the_seed_and_the_step_alone() -> None:
    one, other = order(), order(reached=2)
    list(one)
    assert [one.batch(step) for step in (5, 0, 5)] == [other.batch(step) for step in (5, 0, 5)]
    assert one.batch(0) != one.batch(1)
    assert one.batch(0) != order(seed=6).batch(0)


def test_global_random_numbers_do_not_matter() -> None:
    torch.manual_seed(0)
    _permutation.cache_clear()
    one = order(sizes=(23, 29)).batch(4)
    torch.manual_seed(1)
    _permutation.cache_clear()  # as in another process
    assert order(sizes=(23, 29)).batch(4) == one


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_the_batch_of_the_single_process(ranks: int) -> None:
    """All of it, none twice, and each rank as many of each source."""
    sizes, batch_sizes = (20, 30), (8, 4)
    for step in range(6):
        parts = [order(sizes, batch_sizes, rank=rank, ranks=ranks).batch(step) for rank in range(ranks)]
        assert sorted(key for part in parts for key in part) == sorted(order(sizes, batch_sizes).batch(step))
        assert {sum(index < 20 for index, _ in part) for part in parts} == {8 // ranks}


@pytest.mark.parametrize("reached", range(7))
def test_a_run_that_goes_on_sees_what_the_whole_run_saw(reached: int) -> None:
    """It ends the epoch it stands in; at an epoch's end it begins the next."""
    whole = [*order(reached=0), *order(reached=3), *order(reached=6)]
    rest = list(order(reached=reached))
    assert rest == whole[reached : (reached // 3 + 1) * 3]


def test_an_epoch_has_its_steps() -> None:
    assert len(order(steps=3)) == len(list(order(steps=3))) == 3


def test_the_step_reached_is_asked_for_when_iteration_begins() -> None:
    step = 0
    epochs = ResumableBatchSampler([7], [2], 3, 0, lambda: step)
    first = list(epochs)
    step = 3
    assert list(epochs) == [epochs.batch(i) for i in (3, 4, 5)] != first


def test_labeled_samples_come_in_the_same_order_without_an_unlabeled_source() -> None:
    """With the same augmentation: else distilled and undistilled runs would differ in more than the loss."""
    for step in range(10):
        both, alone = order().batch(step), order(sizes=(7,), batch_sizes=(4,)).batch(step)
        assert both[:4] == alone
        assert all(index >= 7 for index, _ in both[4:])


class Noise(Dataset[dict[str, Tensor]]):
    """A sample with a random augmentation."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": index + torch.rand(3)}

    def __len__(self) -> int:
        return 5


def test_augmentation_depends_on_the_key_alone() -> None:
    torch.manual_seed(0)
    one = SeededDataset(Noise())[2, 77]["image"]
    torch.manual_seed(1)
    assert torch.equal(SeededDataset(Noise())[2, 77]["image"], one)
    assert not torch.equal(SeededDataset(Noise())[2, 78]["image"], one)


def test_a_plain_index_is_always_the_same_sample() -> None:
    assert torch.equal(SeededDataset(Noise())[3]["image"], SeededDataset(Noise())[3, 0]["image"])


def test_the_sample_says_its_own_index() -> None:
    sample = SeededDataset(Noise())[4, 1]
    assert sample["index"].item() == 4 and sample["index"].dtype == torch.int64
    assert len(SeededDataset(Noise())) == 5


def test_drawing_a_sample_leaves_the_global_generators_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a GPU too, which dropout reads there."""
    seeded_gpu: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded_gpu.append)
    before = torch.get_rng_state()
    SeededDataset(Noise())[2, 77]
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded_gpu == []


@pytest.mark.parametrize(("size", "ranks"), [(7, 2), (7, 3), (2, 4), (8, 4), (0, 2)])
def test_shards_hold_every_index_once(size: int, ranks: int) -> None:
    shards = [EvalShardSampler(size, rank, ranks) for rank in range(ranks)]
    assert sorted(index for shard in shards for index in shard) == list(range(size))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_sample_that_cannot_be_read_is_named_without_a_traceback() -> None:
    """Also from a loader's worker, which wraps the error and its traceback."""

    class Broken(Dataset[dict[str, Tensor]]):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            raise ValueError("a.png cannot be read")

        def __len__(self) -> int:
            return 1

    for num_workers in (0, 1):
        with pytest.raises(ConfigError) as error:
            next(iter(DataLoader(SeededDataset(Broken(), "data.val"), num_workers=num_workers)))
        assert str(error.value) == "data.val: a.png cannot be read"


def test_numpy_and_python_draws_depend_on_the_key_too() -> None:
    import random

    import numpy as np

    class Noise(Dataset):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"x": torch.tensor([np.random.rand(), random.random()])}

        def __len__(self) -> int:
            return 3

    samples = SeededDataset(Noise())
    np.random.seed(1)
    random.seed(1)
    undisturbed = np.random.rand(), random.random()
    np.random.seed(1)
    random.seed(1)
    first, second, other = (samples[0, seed]["x"] for seed in (5, 5, 6))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert (np.random.rand(), random.random()) == undisturbed
