"""Random negatives of a contrastive loss."""

import torch
from torch import Tensor


def seeded(device: torch.device, *numbers: int) -> torch.Generator:
    """A random generator seeded by numbers alone, so that it needs no checkpointing.

    Args:
        device: of the generator.
        *numbers: the seed.

    Returns:
        The generator.
    """
    return torch.Generator(device).manual_seed(hash(numbers) % 2**63)


def draw(ordered: Tensor, order: Tensor, keys: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw rows of other keys, uniformly and with replacement.

    In sorted order the rows of one key are adjacent, so skipping one interval excludes them without rejection.

    Args:
        ordered: (N,) keys of all rows in ascending order.
        order: (N,) int64, the rows in that order (as `torch.sort` returns them).
        keys: (B,) keys of the anchors.
        count: number of rows per anchor.
        generator: on the device of `keys`.

    Returns:
        (B, count) int64 rows.

    Raises:
        ValueError: all rows have the same key.
    """
    if ordered[0] == ordered[-1]:
        raise ValueError(f"all {len(order)} rows belong to group {int(ordered[0])}: there are no negatives")
    first = torch.searchsorted(ordered, keys)
    inside = torch.searchsorted(ordered, keys, right=True) - first
    shape = len(keys), count
    position = torch.randint(2**62, shape, generator=generator, device=keys.device) % (len(order) - inside)[:, None]
    position += (position >= first[:, None]) * inside[:, None]
    return order[position]
