"""Which rows an anchor is compared with."""

import torch
from torch import Tensor


def seeded(device: torch.device, *numbers: int) -> torch.Generator:
    """A generator that is a function of the numbers alone: nothing of it has to be saved."""
    return torch.Generator(device).manual_seed(hash(numbers) % 2**63)


def draw(ordered: Tensor, order: Tensor, keys: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` rows for each of `keys` (B,), uniform among the rows of any other key, with replacement: (B, count).

    ordered (N,), order (N,): the rows' keys in rising order, and the rows in that order (`torch.sort`). So rows of
    one key lie side by side, and one jump leaves them out: no draw has to be rejected.

    Raises:
        ValueError: all rows have the same key.
    """
    if ordered[0] == ordered[-1]:
        raise ValueError(f"all {len(order)} rows belong to group {int(ordered[0])}: there are no negatives")
    first = torch.searchsorted(ordered, keys)
    inside = torch.searchsorted(ordered, keys, right=True) - first
    shape = len(keys), count
    place = torch.randint(2**62, shape, generator=generator, device=keys.device) % (len(order) - inside)[:, None]
    place += (place >= first[:, None]) * inside[:, None]
    return order[place]
