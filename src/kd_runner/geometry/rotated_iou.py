"""Overlap of turned boxes without compiled code."""

import torch
from torch import Tensor


def rotated_iou_3d(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every pair of boxes. Exact, and differentiable almost everywhere.

    Args:
        a: `(..., N, 7 or more)`, as in `geometry.boxes3d`; the velocity is ignored.
        b: `(..., M, 7 or more)`.

    Returns:
        `(..., N, M)`, in 0..1.
    """
    a, b = a[..., :, None, :7], b[..., None, :, :7]
    low = torch.maximum(a[..., 2] - a[..., 5] / 2, b[..., 2] - b[..., 5] / 2)
    high = torch.minimum(a[..., 2] + a[..., 5] / 2, b[..., 2] + b[..., 5] / 2)
    inter = _overlap_area(a, b) * (high - low).clamp(min=0)
    union = a[..., 3:6].prod(-1) + b[..., 3:6].prod(-1) - inter
    return inter / union.clamp(min=1e-6)


def _overlap_area(a: Tensor, b: Tensor) -> Tensor:
    """Area that the footprints share; a and b broadcast.

    In the frame of b, by Green's theorem: each y in b's range adds clamp(x_right) - clamp(x_left) of a's outline, so
    the area is the integral of clamp(x) dy along a's edges. It is exact, and continuous where edges coincide.
    """
    cos, sin = b[..., 6].cos(), b[..., 6].sin()
    dx, dy = a[..., 0] - b[..., 0], a[..., 1] - b[..., 1]
    turn = a[..., 6] - b[..., 6]
    along = torch.stack((turn.cos(), turn.sin()), -1) * a[..., 3:4] / 2
    across = torch.stack((-turn.sin(), turn.cos()), -1) * a[..., 4:5] / 2
    center = torch.stack((dx * cos + dy * sin, dy * cos - dx * sin), -1)
    half = torch.stack(torch.broadcast_tensors(b[..., 3], dx), -1)[..., 0] / 2, b[..., 4] / 2
    corners = [center + along + across, center - along + across, center - along - across, center + along - across]
    area = torch.zeros_like(dx)
    for start, end in zip(corners, corners[1:] + corners[:1]):
        area = area + _integral(start, end, *half)
    return area.clamp(min=0)


def _integral(start: Tensor, end: Tensor, half_x: Tensor, half_y: Tensor) -> Tensor:
    """Integral of clamp(x, -half_x, half_x) dy along an edge, where |y| <= half_y."""
    (x0, y0), (x1, y1) = start.unbind(-1), end.unbind(-1)
    # Cut the edge in y.
    slope = (x1 - x0) / _away_from_zero(y1 - y0)
    bottom, top = (y.clamp(-half_y, half_y) for y in (y0, y1))
    left, right = x0 + (bottom - y0) * slope, x0 + (top - y0) * slope
    # Between its crossings of |x| = half_x the clamp is linear, and the trapezium rule exact.
    span = _away_from_zero(right - left)
    crossings = [((side - left) / span).clamp(0, 1) for side in (-half_x, half_x)]
    first, second = torch.minimum(*crossings), torch.maximum(*crossings)
    times = [torch.zeros_like(first), first, second, torch.ones_like(first)]
    heights = [torch.clamp(left + t * (right - left), -half_x, half_x) for t in times]
    pieces = [(t1 - t0) * (h0 + h1) / 2 for t0, t1, h0, h1 in zip(times, times[1:], heights, heights[1:])]
    return (top - bottom) * (pieces[0] + pieces[1] + pieces[2])


def _away_from_zero(value: Tensor) -> Tensor:
    return torch.where(value.abs() < 1e-9, torch.full_like(value, 1e-9), value)
