"""Pictures of a frame's cameras to network input, with matrices that follow the pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

Array = NDArray[Any]


class CameraPipeline:
    """Pictures of one frame to network input: resize, crop to the lower part, stretch, normalize, pad to 32.

    Matrices follow the pixels exactly: where upstream scales them by the drawn factor, these take the size that the
    picture was rounded to, which in small pictures is visibly another. In training every frame draws one factor and one
    horizontal offset from torch's global generator, and each picture its own colors.

    Args:
        train: draw, or take the smallest picture that the crop fits in, its lower middle.
        resize: range of the first factor; published (0.37, 0.45) for pictures of 1600 x 900.
        crop: (height, width) kept after it.
        final: (height, width) that the crop is stretched to; the aspect changes, as published.
        distort: change the colors in training.
        mean, std: per channel (RGB), of 0..255.
    """

    def __init__(
        self,
        train: bool,
        resize: Sequence[float] = (0.37, 0.45),
        crop: Sequence[int] = (320, 640),
        final: Sequence[int] = (640, 640),
        distort: bool = True,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ):
        self.train, self.resize, self.distort = train, (resize[0], resize[1]), distort
        self.crop, self.final = (crop[0], crop[1]), (final[0], final[1])
        self.mean, self.std = (torch.tensor(list(v)).view(3, 1, 1) for v in (mean, std))

    def __call__(self, pictures: Sequence[Image.Image], intrinsics: Array) -> tuple[Tensor, Tensor]:
        """(images (N, 3, H, W), intrinsics (N, 4, 4)) of N pictures and matrices (N, 3, 3); one size for all."""
        width, height = pictures[0].size
        rows, columns = self.crop
        factor = max(rows / height, columns / width)
        if self.train:
            factor = self.resize[0] + (self.resize[1] - self.resize[0]) * torch.rand(()).item()
        small = (int(width * factor + 1e-6), int(height * factor + 1e-6))  # no pixel lost to a rounding error
        spare = max(0, small[0] - columns)
        left, top = int(spare * (torch.rand(()).item() if self.train else 0.5)), small[1] - rows
        box = (left, top, left + columns, top + rows)
        cropped = [p.resize(small, Image.Resampling.BICUBIC).crop(box) for p in pictures]
        images = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in cropped]).float()
        if self.train and self.distort:
            # Upstream distorts before the first resize: the same to the eye, at six times the pixels.
            images = torch.stack([distort_colors(image) for image in images])
        shrinks = self.final[0] < rows or self.final[1] < columns
        images = F.interpolate(images, self.final, mode="bilinear", align_corners=False, antialias=shrinks)
        images = (images - self.mean) / self.std
        images = F.pad(images, (0, -self.final[1] % 32, 0, -self.final[0] % 32))

        first = np.array([[small[0] / width, 0, -left], [0, small[1] / height, -top], [0, 0, 1]])
        second = np.diag([self.final[1] / columns, self.final[0] / rows, 1.0])
        padded = np.tile(np.eye(4), (len(pictures), 1, 1))
        padded[:, :3, :3] = second @ first @ intrinsics
        return images, torch.from_numpy(padded)


def distort_colors(image: Tensor) -> Tensor:
    """Photometric distortion of a picture (3, H, W) in 0..255: brightness up to 32, contrast and saturation 0.5 to 1.5,
    hue up to 18 degrees, order of the channels, each with probability 0.5 (Liu et al. 2016, "SSD", as mmdetection).
    """

    def half() -> bool:
        return bool(torch.rand(()) < 0.5)

    def draw(low: float, high: float) -> float:
        return low + (high - low) * torch.rand(()).item()

    if half():
        image = image + draw(-32, 32)
    first = half()
    if first and half():
        image = image * draw(0.5, 1.5)
    if half():
        value = image.amax(0, keepdim=True)  # HSV saturation, without the way through HSV
        image = value - (value - image) * draw(0.5, 1.5)
    if half():
        image = tv.adjust_hue(image.clamp(0, 255) / 255, draw(-18, 18) / 360) * 255
    if not first and half():
        image = image * draw(0.5, 1.5)
    if half():
        image = image[torch.randperm(3)]
    return image.clamp(0, 255)
