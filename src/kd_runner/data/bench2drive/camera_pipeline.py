"""Camera images to network input, with intrinsics that follow the pixels."""

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
    """Resize, crop to the lower part, stretch, normalize and pad the images of one frame.

    Intrinsics follow the pixels exactly: they are scaled by the rounded size of the image, where the public code scales
    by the drawn factor, which differs visibly for small images. In training, each frame draws one factor and one
    horizontal offset, and each image its own color distortion, from torch's global generator.

    Args:
        train: draw factor and offset; otherwise the smallest image that contains the crop, and its lower middle.
        resize: range of the resize factor; published (0.37, 0.45) for images of 1600 x 900.
        crop: (height, width) kept after resizing.
        final: (height, width) that the crop is stretched to; the aspect ratio changes, as published.
        distort: distort colors in training.
        mean: per channel (RGB), for values 0..255.
        std: likewise.
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

    @property
    def normalization(self) -> dict[str, Any]:
        """What a deployer must do to the pixels of an image."""
        mean, std = (value.flatten().tolist() for value in (self.mean, self.std))
        return {"mean": mean, "std": std, "channel_order": "RGB", "value_range": [0, 255]}

    def __call__(self, camera_images: Sequence[Image.Image], intrinsics: Array) -> tuple[Tensor, Tensor]:
        """Convert the images of a frame.

        Args:
            camera_images: N RGB images of one size.
            intrinsics: `(N, 3, 3)`.

        Returns:
            Images `(N, 3, H, W)` and their intrinsics `(N, 4, 4)`.
        """
        width, height = camera_images[0].size
        rows, columns = self.crop
        factor = max(rows / height, columns / width)
        if self.train:
            factor = self.resize[0] + (self.resize[1] - self.resize[0]) * torch.rand(()).item()
        small = (int(width * factor + 1e-6), int(height * factor + 1e-6))  # 1e-6: no pixel is lost to a rounding error
        spare = max(0, small[0] - columns)
        left, top = int(spare * (torch.rand(()).item() if self.train else 0.5)), small[1] - rows
        box = (left, top, left + columns, top + rows)
        cropped = [p.resize(small, Image.Resampling.BICUBIC).crop(box) for p in camera_images]
        images = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in cropped]).float()
        if self.train and self.distort:
            # The public code distorts before the first resize, which looks the same and costs six times the pixels.
            images = torch.stack([distort_colors(image) for image in images])
        shrinks = self.final[0] < rows or self.final[1] < columns
        images = F.interpolate(images, self.final, mode="bilinear", align_corners=False, antialias=shrinks)
        images = (images - self.mean) / self.std
        images = F.pad(images, (0, -self.final[1] % 32, 0, -self.final[0] % 32))

        first = np.array([[small[0] / width, 0, -left], [0, small[1] / height, -top], [0, 0, 1]])
        second = np.diag([self.final[1] / columns, self.final[0] / rows, 1.0])
        padded = np.tile(np.eye(4), (len(camera_images), 1, 1))
        padded[:, :3, :3] = second @ first @ intrinsics
        return images, torch.from_numpy(padded)


def distort_colors(image: Tensor) -> Tensor:
    """Photometric distortion (Liu et al. 2016, "SSD", as in mmdetection).

    Brightness up to 32, contrast and saturation 0.5 to 1.5, hue up to 18 degrees, order of the channels, each with
    probability 0.5.

    Args:
        image: `(3, H, W)`, values 0..255.

    Returns:
        `(3, H, W)`, values 0..255.
    """

    def coin() -> bool:
        return bool(torch.rand(()) < 0.5)

    def draw(low: float, high: float) -> float:
        return low + (high - low) * torch.rand(()).item()

    if coin():
        image = image + draw(-32, 32)
    contrast_first = coin()
    if contrast_first and coin():
        image = image * draw(0.5, 1.5)
    if coin():
        value = image.amax(0, keepdim=True)  # scales HSV saturation without converting to HSV
        image = value - (value - image) * draw(0.5, 1.5)
    if coin():
        image = tv.adjust_hue(image.clamp(0, 255) / 255, draw(-18, 18) / 360) * 255
    if not contrast_first and coin():
        image = image * draw(0.5, 1.5)
    if coin():
        image = image[torch.randperm(3)]
    return image.clamp(0, 255)
