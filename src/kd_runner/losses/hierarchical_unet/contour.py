"""Loss of the contour branch."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.geometry.rois import labels
from kd_runner.losses.functional.edges import boundary


class ContourBCE(nn.Module):
    """Binary cross entropy of the contour logits with the target's edge, mean over pixels.

    The edge is a band around the target's boundary with a radius of 1 pixel on masks of `base_pixels`, growing with the
    side of larger masks, so that the fraction of edge pixels, and so the loss, does not depend on the resolution.

    Args:
        base_pixels: h * w of a mask whose edge has a radius of 1 pixel.
    """

    def __init__(self, base_pixels: int = 64 * 48):
        super().__init__()
        self.base_pixels = base_pixels

    def forward(self, contour: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            contour: logits (R, 1, h, w) of all B * N ROIs or of those that count.
            target: labels (B, N, h, w): 0 background, 1 target, 2 non-target, 255 void.
            roi_mask: (B, N) bool, False for padding.

        Returns:
            Scalar in nats; 0 if no ROI has labels.
        """
        contour, target = labels(contour, target, roi_mask)
        radius = max(1, round(math.sqrt(target.shape[1:].numel() / self.base_pixels)))
        edge = boundary((target == 1)[:, None].float(), radius)
        return F.binary_cross_entropy_with_logits(contour, edge.float(), reduction="sum") / max(1, edge.numel())
