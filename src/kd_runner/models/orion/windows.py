"""Partition of a token grid into square windows (ViTDet, Li et al. 2022, arXiv 2203.16527)."""

import torch.nn.functional as F
from torch import Tensor


def split_windows(x: Tensor, size: int) -> Tensor:
    """Cut a grid into windows, zero-padded at the right and at the bottom.

    Args:
        x: `(B, H, W, C)`.
        size: side of a window in tokens.

    Returns:
        `(B * windows, size, size, C)`, windows in row-major order.
    """
    _, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    x = x.unflatten(1, (-1, size)).unflatten(3, (-1, size))
    return x.transpose(2, 3).reshape(-1, size, size, channels)


def join_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `split_windows`; the padding is cut off.

    Args:
        windows: `(B * windows, size, size, C)`.
        height: rows of the grid.
        width: columns of the grid.

    Returns:
        `(B, height, width, C)`.
    """
    size = windows.shape[1]
    rows, columns = -(-height // size), -(-width // size)
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]
