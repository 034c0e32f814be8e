"""Encodings of places, times and pixels.

Sources: PETR (Liu et al. 2022, arXiv 2203.05625), StreamPETR (Wang et al. 2023, arXiv 2303.11926), NeRF
(Mildenhall et al. 2020, arXiv 2003.08934), LID depth bins of CaDDN (Reading et al. 2021, arXiv 2103.01100).
"""

import math

import torch
from torch import Tensor

NUM_FREQUENCIES = 6


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """log(x / (1 - x)) with both cut off at `eps`, so that what lies outside 0..1 stays finite."""
    x = x.clamp(0.0, 1.0)
    return (x.clamp(min=eps) / (1.0 - x).clamp(min=eps)).log()


def nerf_encoding(x: Tensor, num_frequencies: int = NUM_FREQUENCIES) -> Tensor:
    """`x (..., n)` to `(..., 2 * num_frequencies * n)`: all sin x, all cos x, all sin 2x, all cos 2x, ..."""
    turns = [x * 2.0**k for k in range(num_frequencies)]
    return torch.cat([part for turn in turns for part in (turn.sin(), turn.cos())], dim=-1)


def time_encoding(time_s: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """`time_s (..., 1)` to `(..., dim)`: sine and cosine in turn, at falling frequencies (Vaswani et al. 2017)."""
    channel = torch.arange(0, dim, 2, device=time_s.device)
    angle = time_s.float() * (2 * math.pi) / temperature ** (channel / dim)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)


def lid_depths(num: int, start_m: float, stop_m: float) -> Tensor:
    """`num` depths from `start_m` on whose gaps grow linearly; the next would be `stop_m`."""
    step = torch.arange(num, dtype=torch.float32)
    return start_m + (stop_m - start_m) / (num * (num + 1)) * step * (step + 1)


def to_unit(points: Tensor, bounds: Tensor) -> Tensor:
    """Points `(..., 3)` in m to 0..1 within `bounds (6,)`: x, y, z from and to."""
    return (points - bounds[:3]) / (bounds[3:] - bounds[:3])


def from_unit(points: Tensor, bounds: Tensor) -> Tensor:
    """Inverse of `to_unit`."""
    return points * (bounds[3:] - bounds[:3]) + bounds[:3]


def invert_projection(lidar2img: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix `(..., 3, 3)` and the offset `(..., 3)` that take `(u d, v d, d)` to the point in the LiDAR frame.

    `lidar2img (..., 4, 4)` ends in the row 0, 0, 0, 1. By cofactors: ONNX has no inverse, and in float32 these keep
    six digits at any focal length, since rows that share a part of the optical axis lose it in the cross product.
    """
    matrix, offset = lidar2img[..., :3, :3].float(), lidar2img[..., :3, 3].float()
    a, b, c = matrix.unbind(-2)
    bc, ca, ab = _cross(b, c), _cross(c, a), _cross(a, b)
    inverse = torch.stack((bc, ca, ab), dim=-1) / (a * bc).sum(-1)[..., None, None]
    return inverse, -(inverse @ offset[..., None])[..., 0]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a[..., i - 2] * b[..., i - 1] - a[..., i - 1] * b[..., i - 2] for i in range(3)], dim=-1)


def lift_pixels(lidar2img: Tensor, grid: tuple[int, int], stride: int, depths: Tensor) -> Tensor:
    """Points in the LiDAR frame `(B, N, rows * columns, depths, 3)` seen at the centers of patches.

    Args:
        lidar2img: `(B, N, 4, 4)` to pixels.
        grid: rows and columns of patches, from the upper left corner.
        stride: side of a patch in pixels.
        depths: `(D,)` in m along the optical axis.
    """
    v, u = ((torch.arange(number, device=depths.device) + 0.5) * stride for number in grid)
    pixel = torch.stack((u.expand(grid[0], -1), v[:, None].expand(-1, grid[1])), dim=-1).flatten(0, 1)
    ray = torch.cat((pixel, torch.ones_like(pixel[:, :1])), dim=-1)
    inverse, origin = invert_projection(lidar2img)
    direction = (inverse[..., None, :, :] @ ray[:, :, None])[..., 0]
    return direction[..., None, :] * depths[:, None] + origin[..., None, None, :]
