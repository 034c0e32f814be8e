"""Transforms of (image, mask) pairs for segmentation, from torchvision's own."""

from collections.abc import Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from kd_runner.data.voc.dataset import MEAN, STD, VOID

# Statistics that torchvision's ImageNet and COCO weights were trained with (RGB, 0..1).
_FILL: dict[type, Any] = {tv_tensors.Image: tuple(round(255 * m) for m in MEAN), tv_tensors.Mask: VOID}


class RandomScale(v2.Transform):
    """Resize height and width by one random factor.

    Args:
        low: lowest factor.
        high: highest factor.
    """

    def __init__(self, low: float, high: float):
        super().__init__()
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        factor = self.low + (self.high - self.low) * torch.rand(()).item()
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return v2.functional.resize(inpt, params["size"], antialias=True)


def train(
    crop: int,
    scale: Sequence[float] = (0.5, 2.0),
    flip: float = 0.5,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
) -> v2.Compose:
    """Training transform of DeepLab and FCN on VOC: random scale, crop, flip and color; padding is mean color and 255.

    Args:
        crop: side of the square crop in pixels.
        scale: lowest and highest factor.
        flip: probability of a horizontal flip; 0 where mirrored objects change class (digits).
        brightness: strengths of `ColorJitter`; all 0 omits it.
        contrast: strengths of `ColorJitter`; all 0 omits it.
        saturation: strengths of `ColorJitter`; all 0 omits it.

    Returns:
        Callable on (image, mask), as tv_tensors.

    Raises:
        ValueError: a crop that is no whole number from 1, a scale that is not two ascending factors above 0.
    """
    if not isinstance(crop, int) or crop < 1:
        raise ValueError(f"crop={crop}: must be a whole number of pixels, at least 1")
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise ValueError(f"scale={list(scale)}: must be the lowest and the highest factor, above 0")
    steps: list[v2.Transform] = [
        RandomScale(*scale),
        v2.RandomCrop(crop, pad_if_needed=True, fill=_FILL),
    ]
    if flip > 0:
        steps.append(v2.RandomHorizontalFlip(flip))
    if brightness or contrast or saturation:
        steps.append(v2.ColorJitter(brightness, contrast, saturation))
    return v2.Compose([*steps, *_normalize()])


class PadTo(v2.Transform):
    """Pad right and bottom to a square, with the mean color and 255.

    Args:
        size: side of the square in pixels.

    Raises:
        ValueError: the image is larger.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        if max(height, width) > self.size:
            raise ValueError(f"an image of {height} x {width} pixels exceeds size={self.size}")
        return {"padding": [0, 0, self.size - width, self.size - height]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        fill = VOID if isinstance(inpt, tv_tensors.Mask) else list(_FILL[tv_tensors.Image])
        return v2.functional.pad(inpt, params["padding"], fill=fill)


def evaluate(size: int | None = None) -> v2.Compose:
    """Validation transform: no resizing, so that metrics are computed at label resolution.

    Args:
        size: pad to size x size, so that images of different sizes fit into a batch (VOC2012: 512); None: no padding.

    Returns:
        Callable on (image, mask), as tv_tensors.
    """
    return v2.Compose([*([PadTo(size)] if size is not None else []), *_normalize()])


def _normalize() -> list[v2.Transform]:
    return [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True), v2.Normalize(MEAN, STD)]


def to_pixels(image: torch.Tensor) -> torch.Tensor:
    """Undo the normalization of images.

    Args:
        image: (..., 3, H, W).

    Returns:
        The same shape, values in 0..1.
    """
    mean, std = image.new_tensor(MEAN)[:, None, None], image.new_tensor(STD)[:, None, None]
    return (image * std + mean).clamp(0, 1)
