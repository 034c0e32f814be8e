"""What a head remembers of earlier frames."""

from dataclasses import dataclass, fields

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


def remember(memory: Memory, queries: Tensor, references: Tensor, scores: Tensor, number: int) -> Memory:
    """Memory after a frame: its `number` best queries, or all if there are fewer, pushed ahead of the older ones, of
    which the last fall out.

    Args:
        queries, references, scores: `(B, Q, dim)`, `(B, Q, points, 3)` in m, `(B, Q)`.
    """
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :number, None]
    embedding = queries.take_along_dim(best, dim=1)
    batch, count = embedding.shape[:2]
    still = torch.eye(4, device=queries.device, dtype=memory.motion.dtype).expand(batch, count, -1, -1)
    latest = (
        embedding,
        references.take_along_dim(best[..., None], dim=1),
        memory.age_s.new_zeros(batch, count, 1),
        still,
    )
    length = memory.embedding.shape[1]
    older = (getattr(memory, field.name) for field in fields(memory))
    return Memory(*(torch.cat((new.to(old.dtype), old), dim=1)[:, :length] for new, old in zip(latest, older)))


def seen_from(memory: Memory, motion: Tensor, elapsed_s: Tensor) -> Memory:
    """Memory at the next frame, of a world that stood still meanwhile.

    Args:
        motion: LiDAR frame of the last frame to that of the next `(B, 4, 4)`, float64, which keeps the products out of
            autocast and TF32.
        elapsed_s: `(B,)`.
    """
    turn, shift = motion[:, None, :3, :3].transpose(-1, -2), motion[:, None, None, :3, 3]
    references = memory.references.double() @ turn + shift
    return Memory(
        memory.embedding,
        references.to(memory.references.dtype),
        memory.age_s + elapsed_s[:, None, None].to(memory.age_s.dtype),
        (motion[:, None] @ memory.motion.double()).to(memory.motion.dtype),
    )


def where(rows: Tensor, memory: Memory, other: Memory) -> Memory:
    """`memory` in the rows of the batch that are True in `rows (B,)`, `other` elsewhere."""

    def resolve(one: Tensor, two: Tensor) -> Tensor:
        return torch.where(rows.view(-1, *[1] * (one.dim() - 1)), one, two)

    return Memory(*(resolve(getattr(memory, field.name), getattr(other, field.name)) for field in fields(memory)))
