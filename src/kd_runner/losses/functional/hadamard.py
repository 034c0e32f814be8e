"""Hadamard matrices."""

import torch
from torch import Tensor


def hadamard(size: int) -> Tensor:
    """An orthogonal matrix (size, size) of float64 whose entries all have the same magnitude, 1 / sqrt(size).

    Built by Sylvester's doubling from orders 1, p + 1 (p prime, p = 3 mod 4) and 2 p + 2 (p prime, p = 1 mod 4).

    Args:
        size: number of rows.

    Returns:
        (size, size).

    Raises:
        ValueError: there is none of this size, or not by these constructions.

    Source:
        Paley, "On Orthogonal Matrices", 1933.
    """
    core, doublings = size, 0
    while True:
        matrix = _core(core)
        if matrix is not None:
            break
        if core % 2:
            raise ValueError(f"no Hadamard matrix of size {size} is known here: rotate=false scales without rotating")
        core, doublings = core // 2, doublings + 1
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    for _ in range(doublings):
        matrix = torch.kron(pair, matrix)
    return matrix / size**0.5


def _core(order: int) -> Tensor | None:
    """A matrix of +-1 of the order itself, or None."""
    if order == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if order % 4 == 0 and _is_prime(order - 1):  # Paley I
        q, sign = order - 1, torch.eye(order, dtype=torch.float64)
        skew = _bordered(q, -1.0)
        return sign + skew
    if order % 4 == 0 and (order // 2 - 1) % 4 == 1 and _is_prime(order // 2 - 1):  # Paley II
        symmetric, one = _bordered(order // 2 - 1, 1.0), torch.eye(order // 2, dtype=torch.float64)
        first = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        second = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
        return torch.kron(symmetric, first) + torch.kron(one, second)
    return None


def _bordered(q: int, corner: float) -> Tensor:
    """The Jacobsthal matrix of q, bordered by ones and `corner` times ones, with a 0 in the corner."""
    squares = {number * number % q for number in range(1, q)}
    character = torch.tensor([0.0] + [1.0 if n in squares else -1.0 for n in range(1, q)], dtype=torch.float64)
    index = torch.arange(q)
    matrix = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    matrix[0, 1:], matrix[1:, 0] = 1.0, corner
    matrix[1:, 1:] = character[(index[:, None] - index) % q]
    return matrix


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
