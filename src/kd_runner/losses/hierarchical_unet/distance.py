"""Distance to the target's edge, and the mask that it draws."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from kd_runner.losses.functional.rois import labels


def edge_distance(mask: Tensor, width: float) -> Tensor:
    """0.5 on the edge of a mask, 1 from `width` pixels inside on, 0 from `width` pixels outside on, linear between.

    The exact Euclidean distance transform, taken on the CPU, of the mask and of its complement: a pixel inside is as
    far from the edge as from the nearest pixel outside, less half a pixel.

    mask (R, h, w) bool. Returns (R, h, w) float on the mask's device.
    """
    signed = np.empty(mask.shape, np.float32)
    for number, one in enumerate(mask.cpu().numpy()):
        signed[number] = _signed(one)
    distance = torch.from_numpy(signed).to(mask.device)
    return (0.5 + distance / (2 * width)).clamp(0, 1)


def _signed(mask: np.ndarray) -> np.ndarray:
    if mask.all() or not mask.any():  # no edge: as far inside or outside as can be
        return np.where(mask, np.inf, -np.inf)
    inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
    return np.where(mask, inside - 0.5, 0.5 - outside)


class EdgeDistanceL1(nn.Module):
    """Mean absolute error of the distance, and beside it the cross entropy of the mask behind the threshold: the
    distance alone would not train the threshold.

    Args:
        width: pixels from 0.5 to 1, of the masks as they are.
        mask_weight: share of the mask's binary cross entropy, in nats.
    """

    def __init__(self, width: float = 5.0, mask_weight: float = 0.1):
        super().__init__()
        if width <= 0:
            raise ValueError(f"loss.distance.fn.width={width} must be above 0")
        self.width, self.mask_weight = width, mask_weight

    def forward(self, distance: Tensor, distance_mask: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """distance and distance_mask (R, 1, h, w), the latter logits; target (B, N, h, w); roi_mask (B, N).

        Returns a scalar; 0 where no ROI has labels.
        """
        distance, truth = labels(distance, target, roi_mask)
        inside, _ = labels(distance_mask, target, roi_mask)
        mask = truth == 1
        error = F.l1_loss(distance[:, 0], edge_distance(mask, self.width), reduction="sum")
        entropy = F.binary_cross_entropy_with_logits(inside[:, 0], mask.float(), reduction="sum")
        return (error + self.mask_weight * entropy) / max(1, mask.numel())
