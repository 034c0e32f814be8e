"""Queries of earlier frames that a head attends to (StreamPETR, Wang et al. 2023, arXiv 2303.11926)."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """Queue of M queries of earlier frames, the most recent frame first and the best scores first within a frame.

    Attributes:
        embedding: `(B, M, dim)`.
        references: `(B, M, points, 3)`, reference points in meters in the current LiDAR frame.
        age_s: `(B, M, 1)`, seconds since the query was stored.
        motion: `(B, M, 4, 4)`, LiDAR frame of that time to the current LiDAR frame.
    """

    embedding: Tensor
    references: Tensor
    age_s: Tensor
    motion: Tensor


def initial_memory(batch: int, dim: int, length: int, pseudo_references: Tensor) -> Memory:
    """Memory of the first frame of a scene: zeros, except for the pseudo reference points at the head of the queue.

    Args:
        batch: number B of samples.
        dim: channels of a query.
        length: number M of queries.
        pseudo_references: `(P, points, 3)`, meters; they get an identity motion.

    Returns:
        The queue.
    """
    count, points = pseudo_references.shape[:2]
    identity = torch.eye(4, device=pseudo_references.device).expand(count, -1, -1)
    references = torch.cat((pseudo_references, pseudo_references.new_zeros(length - count, points, 3)))
    motion = torch.cat((identity, identity.new_zeros(length - count, 4, 4)))
    return Memory(
        pseudo_references.new_zeros(batch, length, dim),
        references.expand(batch, -1, -1, -1),
        pseudo_references.new_zeros(batch, length, 1),
        motion.expand(batch, -1, -1, -1),
    )


def push_queries(memory: Memory, queries: Tensor, references: Tensor, scores: Tensor, num_queries: int) -> Memory:
    """Put the best queries of a frame at the head of the queue; the oldest entries are dropped.

    Args:
        memory: queue of M queries before the frame.
        queries: `(B, Q, dim)`, queries of the frame.
        references: `(B, Q, points, 3)`, their predicted points in meters.
        scores: `(B, Q)`, the larger the better.
        num_queries: number of queries to store; all are stored if Q is smaller.

    Returns:
        A queue of M queries.
    """
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :num_queries, None]
    embedding = queries.take_along_dim(best, dim=1)
    batch, count = embedding.shape[:2]
    identity = torch.eye(4, device=queries.device, dtype=memory.motion.dtype).expand(batch, count, -1, -1)
    latest = (
        embedding,
        references.take_along_dim(best[..., None], dim=1),
        memory.age_s.new_zeros(batch, count, 1),
        identity,
    )
    length = memory.embedding.shape[1]
    older = (getattr(memory, field.name) for field in fields(memory))
    return Memory(*(torch.cat((new.to(old.dtype), old), dim=1)[:, :length] for new, old in zip(latest, older)))


def transform_memory(memory: Memory, motion: Tensor, elapsed_s: Tensor) -> Memory:
    """Express the memory in the LiDAR frame of the next sample, assuming a static world.

    Args:
        memory: queue at the last frame.
        motion: `(B, 4, 4)`, LiDAR frame of the last frame to that of the next; float64, which keeps the products out
            of autocast and TF32.
        elapsed_s: `(B,)`, seconds between the frames.

    Returns:
        The queue in the next frame.
    """
    rotation, translation = motion[:, None, :3, :3].transpose(-1, -2), motion[:, None, None, :3, 3]
    references = memory.references.double() @ rotation + translation
    return Memory(
        memory.embedding,
        references.to(memory.references.dtype),
        memory.age_s + elapsed_s[:, None, None].to(memory.age_s.dtype),
        (motion[:, None] @ memory.motion.double()).to(memory.motion.dtype),
    )


def select_rows(rows: Tensor, memory: Memory, other: Memory) -> Memory:
    """Choose between two memories sample by sample.

    Args:
        rows: `(B,)` bool.
        memory: for the samples where `rows` is True.
        other: for the rest.

    Returns:
        The memory of the batch.
    """

    def select(one: Tensor, two: Tensor) -> Tensor:
        return torch.where(rows.view(-1, *[1] * (one.dim() - 1)), one, two)

    return Memory(*(select(getattr(memory, field.name), getattr(other, field.name)) for field in fields(memory)))
