"""What the nets see: image, truth, teacher and student side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import default_collate

from kd_runner.data.augment import to_pixels
from kd_runner.data.voc import voc_palette
from kd_runner.distiller import Distiller


class SegmentationPictures(Callback):
    """Rows of image, truth, teacher, student for the first validation images: TensorBoard, and `pictures.png` last.

    Args:
        num_images: rows.
        every_n_epochs: how often, in epochs; only after a validation.
        image, target, logits: batch keys, and the tap that holds the classes' scores.
    """

    def __init__(
        self, num_images: int, every_n_epochs: int, image: str = "image", target: str = "target", logits: str = "logits"
    ):
        self.num_images, self.every_n_epochs = num_images, every_n_epochs
        self.image, self.target, self.logits = image, target, logits

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and (epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs):
            self._show(trainer, self.draw(pl_module, trainer.datamodule))

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            picture = self.draw(pl_module, trainer.datamodule)
            Image.fromarray(picture).save(Path(trainer.default_root_dir) / "pictures.png")

    @torch.no_grad()
    def draw(self, module: Distiller, data: Any) -> np.ndarray:
        """(rows, columns, 3) uint8."""
        samples = [data.val[index] for index in range(min(self.num_images, len(data.val)))]
        batch = module.transfer_batch_to_device(default_collate(samples), module.device, 0)
        columns = {"image": _pixels(batch[self.image]), "truth": _colours(batch[self.target])}
        training = module.training
        module.eval()
        if module.teacher is not None:
            columns["teacher"] = self._predicted(module.teacher, batch)
        columns[module.role] = self._predicted(module.tapped_student, batch)
        module.train(training)
        return _table(columns)

    def _predicted(self, net: Any, batch: Mapping[str, Any]) -> np.ndarray:
        return _colours(net(batch, [self.logits])[self.logits].argmax(1))

    @staticmethod
    def _show(trainer: Any, picture: np.ndarray) -> None:
        for logger in trainer.loggers:
            if hasattr(logger.experiment, "add_image"):
                logger.experiment.add_image("val/pictures", picture, trainer.global_step, dataformats="HWC")


def _pixels(image: Tensor) -> np.ndarray:
    return (to_pixels(image.float()).permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype(np.uint8)


def _colours(labels: Tensor) -> np.ndarray:
    return voc_palette()[labels.cpu().numpy()]


def _table(columns: dict[str, np.ndarray], gap: int = 4, title: int = 14) -> np.ndarray:
    """Columns of N images (N, H, W, 3) under their names."""
    images = [np.pad(stack, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255) for stack in columns.values()]
    body = np.concatenate([np.concatenate(list(stack), axis=0) for stack in images], axis=1)
    table = Image.fromarray(np.pad(body, ((title, 0), (0, 0), (0, 0)), constant_values=255))
    pen, left = ImageDraw.Draw(table), 0
    for name, stack in zip(columns, images):
        pen.text((left + 1, 1), name, fill=(0, 0, 0))
        left += stack.shape[2]
    return np.asarray(table)
