"""Loss of the distance branch: distance to the target's edge, and the mask from thresholding it."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from kd_runner.geometry.rois import labels


def edge_distance(mask: Tensor, width: float) -> Tensor:
    """Truncated signed distance to a mask's edge, mapped to 0..1.

    0.5 on the edge, 1 from `width` pixels inside on, 0 from `width` pixels outside on, linear between. Exact Euclidean
    distance transforms of the mask and its complement, on the CPU; half a pixel is subtracted, since the edge runs
    between pixels.

    Args:
        mask: (R, h, w) bool.
        width: in pixels.

    Returns:
        (R, h, w) float in 0..1 on the mask's device.
    """
    signed = np.empty(mask.shape, np.float32)
    for number, roi in enumerate(mask.cpu().numpy()):
        signed[number] = _signed_distance(roi)
    distance = torch.from_numpy(signed).to(mask.device)
    return (0.5 + distance / (2 * width)).clamp(0, 1)


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    if mask.all() or not mask.any():  # no edge
        return np.where(mask, np.inf, -np.inf)
    inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
    return np.where(mask, inside - 0.5, 0.5 - outside)


class EdgeDistanceL1(nn.Module):
    """L1 loss of the edge distance plus cross entropy of the mask that thresholding gives.

        loss = mean |distance - edge_distance(target)| + mask_weight * BCE(distance_mask, target)

    The distance alone would not train the threshold.

    Args:
        width: pixels from 0.5 to 1, at the masks' own resolution.
        mask_weight: weight of the binary cross entropy.

    Raises:
        ValueError: width is not above 0.
    """

    def __init__(self, width: float = 5.0, mask_weight: float = 0.1):
        super().__init__()
        if width <= 0:
            raise ValueError(f"width must be above 0, not {width}")
        self.width, self.mask_weight = width, mask_weight

    def forward(self, distance: Tensor, distance_mask: Tensor, target: Tensor, roi_mask: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            distance: predicted distance (R, 1, h, w).
            distance_mask: logits (R, 1, h, w) of all B * N ROIs or of those that count.
            target: labels (B, N, h, w): 0 background, 1 target, 2 non-target, 255 void.
            roi_mask: (B, N) bool, False for padding.

        Returns:
            Scalar; 0 if no ROI has labels.
        """
        distance, truth = labels(distance, target, roi_mask)
        inside, _ = labels(distance_mask, target, roi_mask)
        mask = truth == 1
        error = F.l1_loss(distance[:, 0], edge_distance(mask, self.width), reduction="sum")
        entropy = F.binary_cross_entropy_with_logits(inside[:, 0], mask.float(), reduction="sum")
        return (error + self.mask_weight * entropy) / max(1, mask.numel())
