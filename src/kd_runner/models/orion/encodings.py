"""Encodings of positions and times, and conversion between meters and normalized coordinates.

Sources: PETR (Liu et al. 2022, arXiv 2203.05625), StreamPETR (Wang et al. 2023, arXiv 2303.11926), NeRF
(Mildenhall et al. 2020, arXiv 2003.08934).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

NUM_FREQUENCIES = 6


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit log(x / (1 - x)), with x and 1 - x clamped to at least `eps` so that the result is finite.

    Args:
        x: any shape; values outside 0..1 count as the nearer end.
        eps: lower bound of x and of 1 - x.

    Returns:
        The same shape.
    """
    x = x.clamp(0.0, 1.0)
    return (x.clamp(min=eps) / (1.0 - x).clamp(min=eps)).log()


def nerf_encoding(x: Tensor, num_frequencies: int = NUM_FREQUENCIES) -> Tensor:
    """Sinusoidal encoding with frequencies 1, 2, 4, ... (NeRF, equation 4, without pi).

    Args:
        x: `(..., n)`.
        num_frequencies: number F of frequencies.

    Returns:
        `(..., 2 * F * n)`, ordered sin(x), cos(x), sin(2x), cos(2x), ..., each with n values.
    """
    angles = [x * 2.0**k for k in range(num_frequencies)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=-1)


def time_encoding(time_s: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Sinusoidal encoding of times: sine and cosine interleaved, at decreasing frequencies (Vaswani et al. 2017).

    Args:
        time_s: `(..., 1)`, seconds.
        dim: number of output channels, even.
        temperature: base of the frequencies `temperature ** (-channel / dim)`.

    Returns:
        `(..., dim)`.
    """
    channel = torch.arange(0, dim, 2, device=time_s.device)
    angle = time_s.float() * (2 * math.pi) / temperature ** (channel / dim)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)


def normalize_points(points: Tensor, bounds: Tensor) -> Tensor:
    """Points in meters to coordinates relative to `bounds`.

    Args:
        points: `(..., 3)`, meters.
        bounds: `(6,)`, minimum x, y, z and maximum x, y, z in meters.

    Returns:
        `(..., 3)`, in 0..1 for points within the bounds.
    """
    return (points - bounds[:3]) / (bounds[3:] - bounds[:3])


def denormalize_points(points: Tensor, bounds: Tensor) -> Tensor:
    """Inverse of `normalize_points`: coordinates in 0..1 to meters.

    Args:
        points: `(..., 3)`.
        bounds: `(6,)`, minimum x, y, z and maximum x, y, z in meters.

    Returns:
        `(..., 3)`, meters.
    """
    return points * (bounds[3:] - bounds[:3]) + bounds[:3]


def sincos_position_table(side: int, dim: int) -> Tensor:
    """Initial position table: sines and cosines of column and row, with wavelengths from 4 tokens to 8 grid sides.

    As in MAE (He et al. 2022). Initialized with small noise instead, a ViT needs hundreds of steps to learn the column
    of a token.

    Args:
        side: rows and columns of the grid.
        dim: channels; those beyond a multiple of four are zero.

    Returns:
        `(side * side, dim)`.
    """
    angle_rad = torch.arange(side)[:, None] * torch.logspace(0, -1, dim // 4, 2 * side) * (torch.pi / 2)
    axis = torch.cat((angle_rad.sin(), angle_rad.cos()), dim=-1)
    table = torch.cat((axis.repeat(side, 1), axis.repeat_interleave(side, dim=0)), dim=-1)
    return F.pad(table, (0, dim - table.shape[-1]))
