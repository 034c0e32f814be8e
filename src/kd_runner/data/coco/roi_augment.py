"""Random augmentation of an image and its boxes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2


class RoiAugment:
    """Augmentation of color, window, flip and boxes.

    It draws from torch's global generator only, which the data module seeds for every sample.

    Args:
        flip: probability of a horizontal flip.
        scale: lowest and highest zoom: above 1 a random window of the image is shown, below 1 the image is put at a
            random position of a larger canvas. (1, 1): the image unchanged.
        box_noise: each side of a box moves by up to this fraction of the box's width or height, as with a detector.
        brightness: strengths of `ColorJitter`; all 0 omits it.
        contrast: strengths of `ColorJitter`; all 0 omits it.
        saturation: strengths of `ColorJitter`; all 0 omits it.

    Raises:
        ValueError: scale or box_noise out of range.
    """

    def __init__(
        self,
        flip: float = 0.5,
        scale: Sequence[float] = (1.0, 1.0),
        box_noise: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
    ):
        self.flip, self.box_noise = flip, box_noise
        self.low, self.high = scale
        if not 0 < self.low <= self.high:
            raise ValueError(f"scale={list(scale)}: give the lowest and the highest factor, above 0")
        if not 0 <= box_noise < 0.5:
            raise ValueError(f"box_noise={box_noise}: must be in 0..0.5; from 0.5 on a box could vanish")
        jitter = brightness or contrast or saturation
        self._jitter = v2.ColorJitter(brightness, contrast, saturation) if jitter else v2.Identity()

    def color(self, image: Tensor) -> Tensor:
        """Jitter the colors of an image.

        Args:
            image: (3, h, w) uint8.

        Returns:
            The same shape and type.
        """
        return self._jitter(image)

    def view(self, height: int, width: int) -> NDArray[np.float64]:
        """A random window of the image's aspect ratio; possibly larger than the image.

        Args:
            height: of the image.
            width: of the image.

        Returns:
            x1, y1, x2, y2 in whole pixels.
        """
        factor = self.low + (self.high - self.low) * torch.rand(()).item()
        shown = np.array([max(1, round(width / factor)), max(1, round(height / factor))])
        corner = np.floor((np.array([width, height]) - shown) * torch.rand(2).numpy() + 0.5)
        return np.concatenate([corner, corner + shown])

    def mirrored(self) -> bool:
        """Whether to flip horizontally."""
        return torch.rand(()).item() < self.flip

    def shaken(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add noise to every side of boxes.

        Args:
            boxes: (n, 4).

        Returns:
            (n, 4).
        """
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        return boxes + self.box_noise * sides * (2 * torch.rand(boxes.shape).numpy() - 1)
