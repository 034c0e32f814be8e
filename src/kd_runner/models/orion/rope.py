"""Two-axis rotary position embedding (Su et al. 2021, arXiv 2104.09864; EVA-02, Fang et al. 2023, arXiv 2303.11331)."""

import torch
from torch import Tensor


def rope_tables(
    height: int, width: int, head_dim: int, *, span: float = 16.0, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables of the rotary positions of a token grid.

    The first half of the channels rotates with the row, the second half with the column. Channels 2i and 2i + 1 of a
    half form a pair with frequency 10000 ** (-4i / head_dim). Row r has position r / height * span and column c has
    position c / width * span, so every grid covers 0..span on each axis, and a window of 16 x 16 tokens has unit steps.

    Args:
        height: rows of tokens.
        width: columns of tokens.
        head_dim: channels per attention head.
        span: length of each axis in rotary positions.
        device: of the tables.

    Returns:
        Two float32 tensors `(height * width, head_dim)`.
    """
    half = head_dim // 2
    frequency = 1.0 / 10000 ** (torch.arange(0, half, 2, device=device).float() / half)
    rows = torch.arange(height, device=device) / height * span
    columns = torch.arange(width, device=device) / width * span
    rows = torch.outer(rows, frequency).repeat_interleave(2, dim=1)
    columns = torch.outer(columns, frequency).repeat_interleave(2, dim=1)
    angle_rad = torch.cat((rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)), dim=-1)
    angle_rad = angle_rad.reshape(height * width, head_dim)
    return angle_rad.cos(), angle_rad.sin()


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate channel pairs by the tables, computed in float32 or wider.

    Args:
        x: `(..., tokens, head_dim)`.
        rope: two tables `(tokens, head_dim)`, see `rope_tables`.

    Returns:
        The shape and dtype of `x`.
    """
    cos, sin = rope
    rotated = torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
    return (x * cos + rotated * sin).to(x.dtype)
