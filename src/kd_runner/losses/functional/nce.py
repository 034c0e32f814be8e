"""The noise-contrastive term of CRD (Tian, Krishnan, Isola 2020, "Contrastive Representation Distillation", section 3;
eps and the fixed Z are those of the authors' code), at the price of two matrix products with the memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-7
# Multiplying with the whole memory costs as much as copying a 64th of it for each anchor (measured on a CPU: between a
# 55th at 16 anchors and an 85th at 64).
DENSE = 64


def similarities(anchor: Tensor, positive: Tensor, memory: Tensor, rows: Tensor) -> Tensor:
    """Dot products (B, 1 + K) of each anchor with its positive, then with its negatives.

    anchor, positive (B, D); memory (N, D); rows (B, K) int64 rows of the memory.
    """
    if DENSE * rows.shape[1] > len(memory) or len(anchor) == 0:
        negative = (anchor @ memory.T).gather(1, rows)
    else:
        negative = torch.stack([memory[row] @ vector for row, vector in zip(rows, anchor)])
    return torch.cat([(anchor * positive).sum(1, keepdim=True), negative], dim=1)


def nce(
    similarity: Tensor, rows: Tensor, memory: Tensor, positive: Tensor, z: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Value, and its gradient at the anchors (B, D): memory is written after this, so nothing is left to autograd.

    With p = exp(similarity / T) / z and c = K / N, the value is the mean over B (0 without any) of
    log(1 + (c + eps) / p_positive) + sum over K of log(1 + (p_negative + eps) / c):
    -log of p / (p + c + eps) and of c / (p + c + eps), which near 1 would lose digits in float32.
    """
    (count, negatives), size = rows.shape, len(memory)
    share = 1 / max(1, count)
    c = negatives / size
    p = (similarity / temperature).exp_().div_(z)
    value = (torch.log1p((c + EPS) / p[:, 0]).sum() + torch.log1p((p[:, 1:] + EPS) / c).sum()) * share
    pull = -(c + EPS) / (p[:, :1] + c + EPS)
    push = p[:, 1:] / (p[:, 1:] + c + EPS)
    if DENSE * negatives > size:
        gradient = memory.new_zeros(count, size).scatter_add_(1, rows, push) @ memory
    else:
        gradient = F.embedding_bag(rows, memory, mode="sum", per_sample_weights=push)
    return value, (gradient + pull * positive) * (share / temperature)


def attach(value: Tensor, gradient: Tensor, anchor: Tensor) -> Tensor:
    """`value`, with `gradient` at `anchor` when differentiated (once)."""
    return value + ((anchor - anchor.detach()) * gradient).sum()
