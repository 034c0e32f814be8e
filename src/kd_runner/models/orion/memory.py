"""What a head remembers of earlier frames."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """M remembered queries, latest and best first: `embedding (B, M, dim)`, `references (B, M, points, 3)` in m,
    `age_s (B, M, 1)`, `motion (B, M, 4, 4)`, LiDAR frame of then to now.
    """

    embedding: Tensor
    references: Tensor
    age_s: Tensor
    motion: Tensor


def first_frame(batch: int, dim: int, length: int, pseudo: Tensor) -> Memory:
    """Memory of a frame without a past, as upstream starts a scene: zeros, but for `pseudo (P, points, 3)` reference
    points in m with an identity motion at the head of the queue.
    """
    count, points = pseudo.shape[:2]
    still = torch.eye(4, device=pseudo.device).expand(count, -1, -1)
    references = torch.cat((pseudo, pseudo.new_zeros(length - count, points, 3)))
    motion = torch.cat((still, still.new_zeros(length - count, 4, 4)))
    return Memory(
        pseudo.new_zeros(batch, length, dim),
        references.expand(batch, -1, -1, -1),
        pseudo.new_zeros(batch, length, 1),
        motion.expand(batch, -1, -1, -1),
    )
