"""The noise-contrastive loss of CRD, with its gradient in closed form: two matrix products with the memory.

Source: Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, section 3; eps and the fixed Z are
those of the authors' code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-7
# Multiplying with the whole memory costs as much as gathering 1/64 of it per anchor (measured on a CPU: 1/55 at 16
# anchors, 1/85 at 64).
DENSE = 64


def similarities(anchor: Tensor, positive: Tensor, memory: Tensor, rows: Tensor) -> Tensor:
    """Dot products of each anchor with its positive, then with its negatives.

    Args:
        anchor: (B, D).
        positive: (B, D).
        memory: (N, D).
        rows: (B, K) int64, the negatives' rows in the memory.

    Returns:
        (B, 1 + K).
    """
    if DENSE * rows.shape[1] > len(memory) or len(anchor) == 0:
        negative = (anchor @ memory.T).gather(1, rows)
    else:
        negative = torch.stack([memory[row] @ vector for row, vector in zip(rows, anchor)])
    return torch.cat([(anchor * positive).sum(1, keepdim=True), negative], dim=1)


def nce(
    similarity: Tensor, rows: Tensor, memory: Tensor, positive: Tensor, z: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Compute one side of the loss and its gradient; not by autograd, because the memory is overwritten afterwards.

    With p = exp(similarity / T) / z and c = K / N, the value is the mean over B of

        log(1 + (c + eps) / p_positive) + sum over K of log(1 + (p_negative + eps) / c)

    that is -log of p / (p + c + eps) and of c / (p + c + eps), in a form that keeps its digits in float32 near 1.

    Args:
        similarity: (B, 1 + K), see `similarities`.
        rows: (B, K) int64.
        memory: (N, D).
        positive: (B, D).
        z: scalar, the normalizer.
        temperature: T.

    Returns:
        The value (0 if B is 0) and its gradient with respect to the anchors (B, D).
    """
    (count, negatives), size = rows.shape, len(memory)
    mean = 1 / max(1, count)
    c = negatives / size
    p = (similarity / temperature).exp_().div_(z)
    value = (torch.log1p((c + EPS) / p[:, 0]).sum() + torch.log1p((p[:, 1:] + EPS) / c).sum()) * mean
    pull = -(c + EPS) / (p[:, :1] + c + EPS)
    push = p[:, 1:] / (p[:, 1:] + c + EPS)
    if DENSE * negatives > size:
        gradient = memory.new_zeros(count, size).scatter_add_(1, rows, push) @ memory
    else:
        gradient = F.embedding_bag(rows, memory, mode="sum", per_sample_weights=push)
    return value, (gradient + pull * positive) * (mean / temperature)


def attach(value: Tensor, gradient: Tensor, anchor: Tensor) -> Tensor:
    """Give a value a gradient that was computed by hand.

    Args:
        value: scalar without gradient.
        gradient: its first derivative with respect to the anchor, (B, D).
        anchor: (B, D).

    Returns:
        The value, a scalar that autograd differentiates to `gradient`.
    """
    return value + ((anchor - anchor.detach()) * gradient).sum()
