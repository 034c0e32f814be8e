"""SIGTERM and SIGINT during training."""

from typing import Any

from lightning.pytorch import Callback

from kd_runner.runtime.signals import raise_on_stop


class StopSignals(Callback):
    """Takes the signals back from Lightning, whose answer to SIGTERM is an end with exit code 0."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        raise_on_stop()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        raise_on_stop()
