"""Augmentation of classification images: pixels (3, H, W) uint8 to such. All draws are torch's."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

Transform = Callable[[Tensor], Tensor]


def shift(pad: int = 4, flip: float = 0.5) -> Transform:
    """CIFAR's augmentation: `pad` black pixels on each side, a random crop of the old size, a random mirroring.

    Args:
        pad: largest shift in pixels.
        flip: probability of mirroring.

    Returns:
        Callable on pixels (3, H, W) uint8.

    Source:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """

    def apply(pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        top, left = torch.randint(2 * pad + 1, (2,)).tolist()
        pixels = F.pad(pixels, (pad, pad, pad, pad))[..., top : top + height, left : left + width]
        return pixels.flip(-1) if float(torch.rand(())) < flip else pixels

    return apply


def train_crop(size: int = 224, scale: Sequence[float] = (0.08, 1.0), flip: float = 0.5) -> Transform:
    """ImageNet's augmentation: a random part of the image, resized to size x size, mirrored at random.

    Args:
        size: height and width of the result in pixels.
        scale: fraction of the area that the part has, from and to.
        flip: probability of mirroring.

    Returns:
        Callable on pixels (3, H, W) uint8.

    Source:
        Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6.
    """
    return v2.Compose([v2.RandomResizedCrop(size, scale=tuple(scale), antialias=True), v2.RandomHorizontalFlip(flip)])


def center_crop(size: int = 224, resize: int = 256) -> Transform:
    """ImageNet's evaluation: the center of the image, after its shorter side was resized.

    Args:
        size: height and width of the result in pixels.
        resize: shorter side of the image before the crop.

    Returns:
        Callable on pixels (3, H, W) uint8.
    """
    return v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(size)])
