"""What the nets see: image, truth, teacher and student side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from kd_runner.callbacks.scheduled_visualizer import ScheduledVisualizer
from kd_runner.distillation.module import Distiller
from kd_runner.visualization.panels import colors, pixels, table


class SegmentationVisualizer(ScheduledVisualizer):
    """Rows of image, truth, teacher, student for the first validation images: TensorBoard, and `pictures.png` last.

    Args:
        num_images: rows.
        every_n_epochs: how often, in epochs; only after a validation.
        image: batch key.
        target: batch key.
        logits: feature that holds the classes' scores.
    """

    def __init__(
        self, num_images: int, every_n_epochs: int, image: str = "image", target: str = "target", logits: str = "logits"
    ):
        super().__init__(every_n_epochs)
        self.num_images = num_images
        self.image, self.target, self.logits = image, target, logits

    def draw(self, module: Distiller, data: Any) -> np.ndarray:
        """Draw the first validation images.

        Args:
            module: holds the nets.
            data: the data module.

        Returns:
            (rows, columns, 3) uint8.
        """
        samples = [data.val[index] for index in range(min(self.num_images, len(data.val)))]
        batch = module.transfer_batch_to_device(data.collate(samples), module.device, 0)
        features = self.features_of_nets(module, batch, [self.logits])
        return table(self.columns(batch, {name: values[self.logits].argmax(1) for name, values in features.items()}))

    def columns(self, batch: Mapping[str, Any], predicted: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Pictures of a batch.

        Args:
            batch: name to stacked tensor.
            predicted: net to its labels.

        Returns:
            Name to pictures (N, H, W, 3).
        """
        labels = {"truth": batch[self.target], **predicted}
        return {"image": pixels(batch[self.image])} | {name: colors(label) for name, label in labels.items()}
