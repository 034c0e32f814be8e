"""Edges of masks."""

import torch.nn.functional as F
from torch import Tensor


def boundary(mask: Tensor, radius: int) -> Tensor:
    """Where a square of `radius` pixels to each side holds both values: dilation less erosion.

    mask (R, C, h, w), float of 0 and 1; the picture's own border is none. Returns (R, C, h, w) bool.
    """
    side = 2 * radius + 1
    dilated = F.max_pool2d(mask, side, stride=1, padding=radius)
    eroded = -F.max_pool2d(-mask, side, stride=1, padding=radius)
    return dilated != eroded
