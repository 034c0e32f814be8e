"""Focal terms of set prediction (Lin et al. 2017, arXiv 1708.02002; costs as in Deformable DETR)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

ALPHA, GAMMA = 0.25, 2.0


def focal_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """What naming a query after an object changes in its focal loss: logits `(L, B, Q, C)`, labels `(B, M)` to
    `(L, B, Q, M)`. Negative labels (padding) cost 0.
    """
    logits = logits.float()
    chance = logits.sigmoid()
    found = -ALPHA * (1 - chance) ** GAMMA * F.logsigmoid(logits)
    missed = -(1 - ALPHA) * chance**GAMMA * F.logsigmoid(-logits)
    named = F.one_hot(labels.clamp(min=0), logits.shape[-1]) * (labels >= 0)[..., None]
    return (found - missed) @ named.to(logits.dtype).transpose(-1, -2)


def focal_sum(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Focal loss summed over queries and classes: logits `(..., C)`, labels `(...)`, C standing for background.

    Args:
        weight: `(...)`, 1 without it.
    """
    classes = logits.shape[-1]
    wanted = F.one_hot(labels, classes + 1)[..., :classes].to(torch.float32)
    loss = sigmoid_focal_loss(logits.float(), wanted, ALPHA, GAMMA)
    return (loss if weight is None else loss * weight[..., None]).sum()
