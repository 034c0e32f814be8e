"""When pictures are drawn, and where they go."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from PIL import Image
from torch import Tensor

from kd_runner.distillation.module import Distiller
from kd_runner.distillation.recorded_teacher import RecordedTeacher
from kd_runner.visualization.panels import enlarge


class ScheduledVisualizer(Callback):
    """Draws after validations, for TensorBoard, and at the end, for `pictures.png`; `draw` says what.

    Args:
        every_n_epochs: how often, in epochs; only after a validation.
    """

    def __init__(self, every_n_epochs: int):
        self.every_n_epochs = every_n_epochs

    def draw(self, module: Distiller, data: Any) -> np.ndarray:
        """Draw the picture.

        Args:
            module: holds the nets.
            data: the data module.

        Returns:
            (rows, columns, 3) uint8.
        """
        raise NotImplementedError

    @staticmethod
    @torch.no_grad()
    def features_of_nets(
        module: Distiller, batch: Mapping[str, Any], features: Iterable[str]
    ) -> dict[str, dict[str, Tensor]]:
        """Features of the teacher, where it has them for any sample, and of the net that trains; in eval mode.

        Args:
            module: holds the nets.
            batch: name to stacked tensor.
            features: names.

        Returns:
            Net to its features by name.
        """
        training, features = module.training, list(features)
        nets = {module.role: module.student}
        teacher = module.teacher
        # A recording knows the training samples alone.
        known = teacher is not None and not isinstance(teacher.net, RecordedTeacher)
        if teacher is not None and known and teacher.features.keys() >= set(features):
            nets = {"teacher": teacher, **nets}
        dtype = next((p.dtype for p in module.net.parameters()), None)
        if dtype in (torch.bfloat16, torch.float16):  # trainer.precision=bf16-true: as Lightning casts its batches
            batch = {key: _cast(value, dtype) for key, value in batch.items()}
        module.eval()
        drawn = {name: net(batch, features) for name, net in nets.items()}
        module.train(training)
        return drawn

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and (epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs):
            picture = enlarge(self.draw(pl_module, trainer.datamodule))
            for logger in trainer.loggers:
                if hasattr(logger.experiment, "add_image"):
                    logger.experiment.add_image("val/pictures", picture, trainer.global_step, dataformats="HWC")

    def save(self, module: Distiller, data: Any, folder: Path) -> None:
        """Write `pictures.png`; called by the task when the best weights are back.

        Args:
            module: holds the nets.
            data: the data module.
            folder: where to write.
        """
        module.place_teacher(module.device)
        Image.fromarray(enlarge(self.draw(module, data))).save(folder / "pictures.png")


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
