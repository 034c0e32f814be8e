"""What nets see that label boxes: the image, a box of it, truth, teacher and student."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align
from torchvision.transforms.v2 import functional
from torchvision.utils import draw_bounding_boxes

from kd_runner.callbacks.segmentation_visualizer import SegmentationVisualizer
from kd_runner.geometry.rois import valid
from kd_runner.visualization.panels import colors, pixels

_SHOWN = 120  # pixels of height from which masks are shown as they are; smaller ones are enlarged


class RoiVisualizer(SegmentationVisualizer):
    """Pictures of some boxes on the first validation images, one row each.

    A row shows the image with its boxes, this one in yellow, then its content, truth, teacher and student.

    Args:
        num_images: images.
        rois_per_image: rows an image, or fewer where it has fewer boxes.
        every_n_epochs: how often, in epochs; only after a validation.
        image: batch key, as for the next three; shapes as `data.coco.dataset.CocoInstances` gives them.
        rois: batch key.
        roi_mask: batch key.
        target: batch key.
        logits: feature that holds the classes' scores (R, C, h, w), of all boxes or of those that `roi_mask` counts.
    """

    def __init__(
        self,
        num_images: int,
        rois_per_image: int,
        every_n_epochs: int,
        image: str = "image",
        rois: str = "rois",
        roi_mask: str = "roi_mask",
        target: str = "target",
        logits: str = "logits",
    ):
        super().__init__(num_images, every_n_epochs, image, target, logits)
        self.rois_per_image, self.rois, self.roi_mask = rois_per_image, rois, roi_mask

    def columns(self, batch: Mapping[str, Any], predicted: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Pictures of a batch.

        Args:
            batch: name to stacked tensor.
            predicted: net to its labels.

        Returns:
            Name to pictures (N, H, W, 3).
        """
        roi_mask, target = batch[self.roi_mask], batch[self.target]
        shown = roi_mask & (torch.arange(roi_mask.shape[1], device=roi_mask.device) < self.rois_per_image)
        said = {name: valid(labels, roi_mask)[shown[roi_mask]] for name, labels in predicted.items()}
        factor = max(1, _SHOWN // target.shape[-2])
        height, width = (factor * side for side in target.shape[-2:])
        boxes = [rois[here] for rois, here in zip(batch[self.rois], roi_mask)]
        cut = _cut(batch[self.image], [rois[here] for rois, here in zip(batch[self.rois], shown)], height, width)
        return {
            "image": _with_boxes(batch[self.image], boxes, shown.sum(1).tolist(), height),
            "box": pixels(cut),
            **{
                name: colors(labels).repeat(factor, axis=1).repeat(factor, axis=2)
                for name, labels in {"truth": target[shown], **said}.items()
            },
        }


def _cut(image: Tensor, boxes: list[Tensor], height: int, width: int) -> Tensor:
    """Boxes, relative to the images, as pictures (rows, 3, height, width)."""
    size = image.shape[-2:]
    scale = torch.tensor([size[1], size[0], size[1], size[0]], device=image.device)
    in_pixels = [(b * scale).to(image.dtype) for b in boxes]
    return roi_align(image, in_pixels, (height, width), sampling_ratio=2, aligned=True)


def _with_boxes(image: Tensor, boxes: list[Tensor], rows: list[int], height: int) -> np.ndarray:
    """Each image as often as it has rows, `height` pixels high, row k with its box k in yellow."""
    width = round(image.shape[-1] * height / image.shape[-2])
    small = functional.resize(torch.from_numpy(pixels(image)).permute(0, 3, 1, 2), [height, width], antialias=True)
    scale = torch.tensor([width - 1, height - 1, width - 1, height - 1])
    drawn = [
        # The row's own box is drawn last, over the others.
        draw_bounding_boxes(draw_bounding_boxes(picture, corners, colors="gray"), corners[k : k + 1], colors="yellow")
        for picture, corners, count in zip(small, [b.cpu() * scale for b in boxes], rows)
        for k in range(count)
    ]
    return torch.stack(drawn).permute(0, 2, 3, 1).numpy()
