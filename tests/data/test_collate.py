"""Tuples as samples, and samples as batches."""

from functools import partial

import pytest
import torch

from kd_runner.data.collate import KeyedSamples, keep_lists, stack
from kd_runner.data.module import DataModule
from kd_runner.errors import ConfigError

TUPLES = [(torch.full((3, 4, 4), float(i)), i) for i in range(6)]


def test_tuples_get_names() -> None:
    module = DataModule(lambda: TUPLES, lambda: TUPLES[:2], batch_size=2, sample_keys=["image", "target"])
    batch = module.example()
    assert batch["image"].shape == (2, 3, 4, 4) and batch["target"].tolist() == batch["index"].tolist()
    assert [int(module.val[i]["target"]) for i in range(2)] == [0, 1]
    with pytest.raises(ConfigError, match=r"sample_keys=\['image'\]: a sample of data\.val is a tuple of 2"):
        KeyedSamples(TUPLES, ["image"], "data.val")[0]


def test_tuples_without_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.train: a sample is a tuple.* data\.sample_keys=\[image, target\]"):
        DataModule(lambda: TUPLES, lambda: TUPLES, batch_size=2).example()


def test_shapes_that_differ_are_named() -> None:
    with pytest.raises(ConfigError, match=r"'image' is \(3, 4, 4\) in one sample and \(3, 4, 5\) in another"):
        stack([{"image": torch.zeros(3, 4, 4)}, {"image": torch.zeros(3, 4, 5)}])
    with pytest.raises(ConfigError, match="some samples have 'mask'"):
        stack([{"image": torch.zeros(1)}, {"image": torch.zeros(1), "mask": torch.zeros(1)}])


def test_a_collate_function_makes_every_batch() -> None:
    samples = [{"image": torch.zeros(3, 4, 4), "boxes": torch.ones(i, 4)} for i in range(4)]
    own = partial(keep_lists, lists=["boxes"])
    module = DataModule(lambda: samples, lambda: samples, batch_size=2, val_batch_size=4, collate=own)
    (batch,) = module.plain_val_loader()
    assert batch["image"].shape == (4, 3, 4, 4) and [len(boxes) for boxes in batch["boxes"]] == [0, 1, 2, 3]
    assert len(module.example()["boxes"]) == 2
