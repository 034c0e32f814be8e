"""Boundaries of masks."""

import torch.nn.functional as F
from torch import Tensor


def boundary(mask: Tensor, radius: int) -> Tensor:
    """Morphological boundary: dilation minus erosion with a square of `radius` pixels to each side.

    Args:
        mask: (R, C, h, w) float of 0 and 1.
        radius: in pixels.

    Returns:
        (R, C, h, w) bool. The image border is no boundary.
    """
    side = 2 * radius + 1
    dilated = F.max_pool2d(mask, side, stride=1, padding=radius)
    eroded = -F.max_pool2d(-mask, side, stride=1, padding=radius)
    return dilated != eroded
