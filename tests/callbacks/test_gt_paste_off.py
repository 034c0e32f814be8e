"""Training ends without pasted objects."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from kd_runner.callbacks.gt_paste_off import GtPasteOff
from kd_runner.data.nuscenes.gt_paste import GtPaste
from kd_runner.errors import ConfigError


def trainer(epoch: int, samples: object) -> SimpleNamespace:
    train = SimpleNamespace(samples=samples)
    return SimpleNamespace(current_epoch=epoch, datamodule=SimpleNamespace(train=train))


def test_off_from_its_epoch_on(tmp_path: Path) -> None:
    paste = GtPaste(tmp_path)
    on = []
    for epoch in range(4):
        GtPasteOff(epoch=2).on_train_epoch_start(trainer(epoch, SimpleNamespace(paste=paste)), None)  # type: ignore[arg-type]
        on.append(paste.on)
    assert on == [True, True, False, False]


def test_a_run_resumed_within_the_last_epochs_is_off_too(tmp_path: Path) -> None:
    paste = GtPaste(tmp_path)
    GtPasteOff(epoch=2).on_train_start(trainer(3, SimpleNamespace(paste=paste)), None)  # type: ignore[arg-type]
    assert not paste.on


def test_beside_unlabelled_samples(tmp_path: Path) -> None:
    paste = GtPaste(tmp_path)
    samples = SimpleNamespace(datasets=[SimpleNamespace(paste=paste), SimpleNamespace(paste=None)])
    GtPasteOff(epoch=1).on_train_start(trainer(1, samples), None)  # type: ignore[arg-type]
    assert not paste.on


def test_without_pasting_it_says_so() -> None:
    with pytest.raises(ConfigError, match=r"needs data\.train\.paste"):
        GtPasteOff(epoch=1).on_train_start(trainer(0, object()), None)  # type: ignore[arg-type]
