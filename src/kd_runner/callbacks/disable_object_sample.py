"""Switches ObjectSample off some epochs before training ends, so that a net finishes on frames as they are."""

from lightning.pytorch import Callback, LightningModule, Trainer

from kd_runner.errors import ConfigError


class DisableObjectSample(Callback):
    """Switches `ObjectSample` off from an epoch on, also in a resumed run.

    Args:
        epoch: the first epoch without, counted from 0 (BEVFusion: 15 of 20).

    Raises:
        ConfigError: the training data have no object_sample.
    """

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._switch(trainer)  # a run resumed within an epoch does not start that epoch again

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._switch(trainer)

    def _switch(self, trainer: Trainer) -> None:
        samples = trainer.datamodule.train.samples  # type: ignore[attr-defined]
        parts = getattr(samples, "datasets", [samples])  # labeled and unlabeled ones
        samplers = [part.object_sample for part in parts if getattr(part, "object_sample", None) is not None]
        if not samplers:
            raise ConfigError("callbacks: DisableObjectSample needs data.train.object_sample")
        for sampler in samplers:
            sampler.enabled = trainer.current_epoch < self.epoch
