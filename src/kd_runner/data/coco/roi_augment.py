"""Random changes of an image and the boxes on it, for training on regions of interest."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from kd_runner.errors import ConfigError


class RoiAugment:
    """Draws from torch's global generator alone, which the data module seeds for every sample.

    Args:
        flip: probability of a horizontal flip.
        scale: lowest and highest factor by which things grow on the canvas: above 1 a random window of the image is
            shown, below 1 the image lies at a random place of a larger canvas. (1, 1): the image as it is.
        box_noise: each side of a box moves by up to this share of the box's width or height: detectors err too.
        brightness, contrast, saturation: strengths of `ColorJitter`; all 0 leaves it out.
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
            raise ConfigError(f"augment.scale={list(scale)}: give the lowest and the highest factor, above 0")
        if not 0 <= box_noise < 0.5:
            raise ConfigError(f"augment.box_noise={box_noise}: from 0.5 on a box could vanish")
        jitter = brightness or contrast or saturation
        self._jitter = v2.ColorJitter(brightness, contrast, saturation) if jitter else v2.Identity()

    def color(self, picture: Tensor) -> Tensor:
        """The same picture (3, h, w) uint8 in other light."""
        return self._jitter(picture)

    def view(self, height: int, width: int) -> NDArray[np.float64]:
        """x1, y1, x2, y2 in whole pixels: the part of the image's plane that is shown, as wide in proportion."""
        factor = self.low + (self.high - self.low) * torch.rand(()).item()
        shown = np.array([max(1, round(width / factor)), max(1, round(height / factor))])
        corner = np.floor((np.array([width, height]) - shown) * torch.rand(2).numpy() + 0.5)
        return np.concatenate([corner, corner + shown])

    def mirrored(self) -> bool:
        return torch.rand(()).item() < self.flip

    def shaken(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes (n, 4) with noise on every side."""
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        return boxes + self.box_noise * sides * (2 * torch.rand(boxes.shape).numpy() - 1)
