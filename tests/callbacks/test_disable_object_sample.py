"""Training ends without pasted objects."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from kd_runner.callbacks.disable_object_sample import DisableObjectSample
from kd_runner.data.nuscenes.object_sample import ObjectSample
from kd_runner.errors import ConfigError


def trainer(epoch: int, samples: object) -> SimpleNamespace:
    train = SimpleNamespace(samples=samples)
    return SimpleNamespace(current_epoch=epoch, datamodule=SimpleNamespace(train=train))


def test_off_from_its_epoch_on(tmp_path: Path) -> None:
    sampler = ObjectSample(tmp_path)
    on = []
    for epoch in range(4):
        DisableObjectSample(epoch=2).on_train_epoch_start(trainer(epoch, SimpleNamespace(object_sample=sampler)), None)  # type: ignore[arg-type]
        on.append(sampler.enabled)
    assert on == [True, True, False, False]


def test_a_run_resumed_within_the_last_epochs_is_off_too(tmp_path: Path) -> None:
    sampler = ObjectSample(tmp_path)
    DisableObjectSample(epoch=2).on_train_start(trainer(3, SimpleNamespace(object_sample=sampler)), None)  # type: ignore[arg-type]
    assert not sampler.enabled


def test_beside_unlabeled_samples(tmp_path: Path) -> None:
    sampler = ObjectSample(tmp_path)
    samples = SimpleNamespace(datasets=[SimpleNamespace(object_sample=sampler), SimpleNamespace(object_sample=None)])
    DisableObjectSample(epoch=1).on_train_start(trainer(1, samples), None)  # type: ignore[arg-type]
    assert not sampler.enabled


def test_without_pasting_it_says_so() -> None:
    with pytest.raises(ConfigError, match=r"needs data\.train\.object_sample"):
        DisableObjectSample(epoch=1).on_train_start(trainer(0, object()), None)  # type: ignore[arg-type]
