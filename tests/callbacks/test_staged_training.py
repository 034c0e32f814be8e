"""What moves in which epoch, at which rate, and that a resumed run does not notice."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from kd_runner.callbacks.staged_training import StagedTraining
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.distillation.module import Distiller
from kd_runner.distillation.optim import warmup_cosine
from kd_runner.errors import ConfigError
from kd_runner.losses.task_ce import CrossEntropy

EPOCHS, STEPS = 5, 2


def block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"stem": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4), "blocks": nn.ModuleList()})
        self.encoder["blocks"].extend([block(), block()])
        self.decoder = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder["norm"](self.encoder["stem"](x))
        for part in self.encoder["blocks"]:
            x = part(x)
        return self.decoder(x)


class Diary(Callback):
    """Which modules moved in each epoch (weights or statistics), and the learning rates of its first step."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []
        self.rates: list[list[float]] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._before = {name: value.clone() for name, value in pl_module.net.state_dict().items()}
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        after = pl_module.net.state_dict()
        names = {name for name, value in self._before.items() if not torch.equal(value, after[name])}
        parts = ("encoder.blocks.1", "encoder.blocks.0", "encoder.stem", "encoder.norm", "decoder")
        self.moved.append({part for part in parts if any(name.startswith(part) for name in names)})


def stages(**change: Any) -> StagedTraining:
    given = {"blocks": ["encoder.blocks.1", "encoder.blocks.0"], "frozen_epochs": 1, "epochs_per_block": 2}
    return StagedTraining(**{"encoder": "encoder", **given, "lr_scale": 0.25, **change})


def fit(folder: Path, callback: Callback, epochs: int = EPOCHS, resume: str | None = None) -> tuple[Diary, Distiller]:
    torch.manual_seed(0)
    student = FeatureExtractor(Net(), {"x": "x"}, {"logits": ":"}, "student")
    module = Distiller(
        student,
        terms=[LossTerm("ce", CrossEntropy(), {"logits": "student.logits", "target": "batch.y"})],
        optimizer=partial(torch.optim.AdamW, lr=1e-2),
        scheduler=lambda optimizer, total_steps: warmup_cosine(optimizer, EPOCHS * STEPS),
    )
    data = [{"x": torch.randn(2, 3, 4, 4), "y": torch.randint(0, 2, (2, 4, 4))} for _ in range(STEPS)]
    diary = Diary()
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        callbacks=[callback, diary],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader(data, batch_size=None)
    trainer.fit(module, loader, loader, ckpt_path=resume, weights_only=False)
    trainer.save_checkpoint(folder / "stopped.ckpt")
    return diary, module


def test_decoder_first_then_the_deepest_block(tmp_path: Path) -> None:
    """Validation runs after each epoch and must not wake up the batch norms."""
    diary, _ = fit(tmp_path, stages())
    one = {"decoder", "encoder.blocks.1"}
    everything = one | {"encoder.blocks.0", "encoder.stem", "encoder.norm"}
    assert diary.moved == [{"decoder"}, one, one, everything, everything]


def test_encoder_has_its_share_of_the_scheduled_rate(tmp_path: Path) -> None:
    diary, _ = fit(tmp_path, stages())
    assert len({rates[0] for rates in diary.rates}) == EPOCHS
    for weights, vectors, encoder_weights, encoder_vectors in diary.rates:
        assert weights == vectors
        assert encoder_weights == encoder_vectors == pytest.approx(0.25 * weights)


@pytest.mark.parametrize("stopped", [1, 2, 3])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, stopped: int) -> None:
    _, whole = fit(tmp_path, stages())
    fit(tmp_path, stages(), epochs=stopped)
    diary, resumed = fit(tmp_path, stages(), resume=str(tmp_path / "stopped.ckpt"))
    assert len(diary.moved) == EPOCHS - stopped
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": []}, "names no module"),
        ({"frozen_epochs": -1}, "from 0"),
        ({"blocks": ["encoder.block.1"]}, r"encoder\.blocks\.1"),
        ({"blocks": ["decoder"]}, "'encoder' has no 'decoder'"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path, stages(**change), epochs=1)
