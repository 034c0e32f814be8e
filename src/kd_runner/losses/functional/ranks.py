"""Communication between the processes of a distributed run."""

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """Number of this process, 0 without torch.distributed."""
    return dist.get_rank() if _several() else 0


def gather(tensor: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, in rank order; numbers of rows may differ. Without gradient.

    Args:
        tensor: (rows, ...) of this rank.

    Returns:
        (rows of all ranks, ...).
    """
    if not _several():
        return tensor
    count = torch.tensor([len(tensor)], device=tensor.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    longest = int(torch.cat(counts).max())
    padded = tensor.new_zeros(longest, *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(n)] for part, n in zip(parts, counts)])


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
