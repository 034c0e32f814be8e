"""The data module, on data that is nothing but numbers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_runner.data.module import DataModule
from kd_runner.errors import ConfigError


class Numbers(Dataset[dict[str, Tensor]]):
    def __init__(self, size: int, first: int = 0):
        self.size, self.first = size, first

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": torch.tensor(self.first + index), "noise": torch.rand(())}

    def __len__(self) -> int:
        return self.size


def module(unlabeled: int = 11, rank: int = 0, ranks: int = 1, reached: int = 0, **options: Any) -> DataModule:
    """10 labeled images numbered from 0, unlabeled ones from 100, 7 of validation; a stand-in for the trainer."""
    sizes = {"batch_size": 4, "unlabeled_batch_size": 2, "val_batch_size": 2}
    data = DataModule(
        train=lambda: Numbers(10),
        val=lambda: Numbers(7),
        unlabeled=(lambda: Numbers(unlabeled, 100)) if unlabeled else None,
        **(sizes | options),
    )
    progress = SimpleNamespace(total=SimpleNamespace(ready=reached))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks, fit_loop=loop)
    return data


def test_a_batch_holds_its_shares_labeled_first() -> None:
    for batch in module().train_dataloader():
        assert (batch["index"] < 10).tolist() == [True] * 4 + [False] * 2
        assert (batch["image"] >= 100).tolist() == [False] * 4 + [True] * 2


def test_index_is_the_samples_own_number_unlabeled_after_labeled() -> None:
    data = module()
    batch = next(iter(data.train_dataloader()))
    expected = torch.where(batch["image"] < 100, batch["image"], batch["image"] - 100 + data.num_labeled)
    assert torch.equal(batch["index"], expected)
    assert (data.num_labeled, data.num_unlabeled) == (10, 11)


@pytest.mark.parametrize(("steps", "expected"), [(None, 2), (5, 5)])
def test_an_epoch_is_one_pass_over_the_labeled_or_what_is_asked_for(steps: int | None, expected: int) -> None:
    loader = module(steps_per_epoch=steps).train_dataloader()
    assert len(loader) == len(list(loader)) == expected


def test_a_loader_goes_on_from_the_step_that_training_has_reached() -> None:
    whole = list(module(steps_per_epoch=5).train_dataloader())
    rest = list(module(steps_per_epoch=5, reached=3).train_dataloader())
    assert len(rest) == 2
    for one, other in zip(whole[3:], rest):
        assert all(torch.equal(one[name], other[name]) for name in ("index", "image", "noise"))


def test_labeled_samples_are_the_same_without_the_unlabeled_ones() -> None:
    for both, alone in zip(module().train_dataloader(), module(unlabeled=0).train_dataloader(), strict=True):
        assert torch.equal(both["index"][:4], alone["index"])
        assert torch.equal(both["noise"][:4], alone["noise"])


def test_accumulated_batches_are_together_one_optimizer_step() -> None:
    """The samples of a step and the steps of an epoch are those without accumulation."""
    whole, parts = list(module().train_dataloader()), list(module(accumulate=2).train_dataloader())
    assert len(parts) == 2 * len(whole) and all(len(part["index"]) == 3 for part in parts)
    for step, batch in enumerate(whole):
        halves = torch.cat([part["index"] for part in parts[2 * step : 2 * step + 2]])
        assert sorted(halves.tolist()) == sorted(batch["index"].tolist())


def test_loaders_leave_the_global_generator_untouched() -> None:
    data = module()
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.plain_val_loader()):
        list(loader)
    data.example()
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_shards_cover_the_set_once_and_the_plain_loader_all_of_it() -> None:
    shards = [[i for b in module(rank=r, ranks=2).val_dataloader() for i in b["index"].tolist()] for r in range(2)]
    assert [len(s) for s in shards] == [4, 3]
    assert sorted(shards[0] + shards[1]) == list(range(7))
    assert [i for b in module(rank=1, ranks=2).plain_val_loader() for i in b["index"].tolist()] == list(range(7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 3, "ranks": 2}, "data.batch_size=3 cannot be split evenly between 2 processes"),
        ({"unlabeled_batch_size": 1, "ranks": 2}, "data.unlabeled_batch_size=1 cannot be split evenly between 2"),
        ({"batch_size": 6, "accumulate": 4}, "data.batch_size=6 cannot be split evenly .* and 4 accumulated batches"),
        ({"batch_size": 0}, "data.batch_size=0: must be at least 1"),
        ({"batch_size": 12}, "data.batch_size=12 exceeds the 10 samples"),
        ({"unlabeled_batch_size": 12}, "data.unlabeled_batch_size=12 exceeds the 11 samples"),
    ],
)
def test_a_batch_that_cannot_be_split_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        module(**options).order()


def test_the_example_holds_both_kinds_before_there_is_a_trainer() -> None:
    data = module()
    data.trainer = None
    assert (data.example(2)["index"] < 10).tolist() == [True, True, False, False]
    first = next(iter(module().train_dataloader()))
    assert set(data.example(2)["index"].tolist()) <= set(first["index"].tolist())


def test_calibration_gives_single_labeled_samples() -> None:
    batches = list(module().calibration(3))
    assert [b["index"].tolist() for b in batches] == [[0], [1], [2]]
    assert len(list(module().calibration(99))) == 10


def test_datasets_are_made_when_first_needed() -> None:
    def never() -> Any:
        raise AssertionError("made too early")

    data = DataModule(train=lambda: Numbers(10), val=never, unlabeled=None)
    assert data.num_labeled == 10
