"""Focal loss and matching cost of set prediction (Lin et al. 2017, arXiv 1708.02002; cost as in Deformable DETR)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

ALPHA, GAMMA = 0.25, 2.0


def focal_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Change of a query's focal loss if it is assigned to an object.

    Args:
        logits: (L, B, Q, C).
        labels: (B, M) int64; negative for padding, which costs 0.

    Returns:
        (L, B, Q, M).
    """
    logits = logits.float()
    p = logits.sigmoid()
    positive = -ALPHA * (1 - p) ** GAMMA * F.logsigmoid(logits)
    negative = -(1 - ALPHA) * p**GAMMA * F.logsigmoid(-logits)
    one_hot = F.one_hot(labels.clamp(min=0), logits.shape[-1]) * (labels >= 0)[..., None]
    return (positive - negative) @ one_hot.to(logits.dtype).transpose(-1, -2)


def focal_sum(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Focal loss summed over queries and classes.

    Args:
        logits: (..., C).
        labels: (...) int64, C for background.
        weight: (...), weight of each query; None for 1.

    Returns:
        Scalar.
    """
    classes = logits.shape[-1]
    target = F.one_hot(labels, classes + 1)[..., :classes].to(torch.float32)
    loss = sigmoid_focal_loss(logits.float(), target, ALPHA, GAMMA)
    return (loss if weight is None else loss * weight[..., None]).sum()
