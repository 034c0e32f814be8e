"""When pictures are drawn, and where they go."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback
from PIL import Image

from kd_runner.distiller import Distiller


class ScheduledPictures(Callback):
    """Draws after validations, for TensorBoard, and at the end, for `pictures.png`; `draw` says what.

    Args:
        every_n_epochs: how often, in epochs; only after a validation.
    """

    def __init__(self, every_n_epochs: int):
        self.every_n_epochs = every_n_epochs

    def draw(self, module: Distiller, data: Any) -> np.ndarray:
        """(rows, columns, 3) uint8."""
        raise NotImplementedError

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and (epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs):
            picture = self.draw(pl_module, trainer.datamodule)
            for logger in trainer.loggers:
                if hasattr(logger.experiment, "add_image"):
                    logger.experiment.add_image("val/pictures", picture, trainer.global_step, dataformats="HWC")

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            picture = self.draw(pl_module, trainer.datamodule)
            Image.fromarray(picture).save(Path(trainer.default_root_dir) / "pictures.png")
