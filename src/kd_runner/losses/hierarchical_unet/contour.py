"""The contour of the target, as a picture."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.edges import boundary
from kd_runner.losses.functional.rois import labels


class ContourBCE(nn.Module):
    """Binary cross entropy of logits with the target's edge, mean over pixels.

    The edge is a band of one pixel to each side at `base_pixels` and grows with the side of larger masks, so that its
    share of the pixels, and with it the loss, does not depend on the resolution.

    Args:
        base_pixels: pixels of a mask whose band has a radius of 1.
    """

    def __init__(self, base_pixels: int = 64 * 48):
        super().__init__()
        self.base_pixels = base_pixels

    def forward(self, contour: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """contour (R, 1, h, w), logits; target (B, N, h, w), 1 in the target; roi_mask (B, N).

        Returns a scalar in nats; 0 where no ROI has labels.
        """
        contour, target = labels(contour, target, roi_mask)
        radius = max(1, round(math.sqrt(target.shape[1:].numel() / self.base_pixels)))
        edge = boundary((target == 1)[:, None].float(), radius)
        return F.binary_cross_entropy_with_logits(contour, edge.float(), reduction="sum") / max(1, edge.numel())
