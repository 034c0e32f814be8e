"""Penalty-reduced focal loss on center heat maps, and its targets (Law and Deng, "CornerNet", ECCV 2018)."""

import torch
from torch import Tensor


def gaussian_focal(logits: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
    """Gaussian focal loss (CornerNet, equation 1; alpha 2, beta 4), divided by the number of cells with target 1.

        loss = -1/N sum of (1 - p)^2 log p                where target = 1
                           (1 - target)^4 p^2 log(1 - p)  elsewhere

    Args:
        logits: any shape; probabilities p are clamped to 1e-4..1-1e-4.
        target: same shape, 0..1.
        counted: same shape, bool; cells where it is False are left out. None: all count.

    Returns:
        Scalar; N is at least 1.
    """
    p = logits.float().sigmoid().clamp(1e-4, 1 - 1e-4)
    center = target == 1
    loss = torch.where(center, -((1 - p) ** 2) * p.log(), -(p**2) * (1 - p).log() * (1 - target) ** 4)
    if counted is not None:
        loss, center = loss * counted, center & counted
    return loss.sum() / center.sum().clamp(min=1)


def gaussian_radius(length: Tensor, width: Tensor, min_overlap: float) -> Tensor:
    """Radius of the Gaussian of a box, so that boxes shifted by it still overlap.

    The smallest of CornerNet's three cases, with CenterNet's roots (divided by 2 and not by 2a), as public 3-D
    detectors are trained with.

    Args:
        length: sides in cells, any shape.
        width: sides in cells, any shape.
        min_overlap: lowest IoU with the box.

    Returns:
        Radius in cells, same shape.
    """
    total, area = length + width, length * width
    touching = total**2 - 4 * area * (1 - min_overlap) / (1 + min_overlap)
    inside = 4 * total**2 - 16 * (1 - min_overlap) * area
    outside = (2 * min_overlap * total) ** 2 - 16 * min_overlap * (min_overlap - 1) * area
    roots = [(b + square.clamp(min=0).sqrt()) / 2 for b, square in (
        (total, touching), (2 * total, inside), (-2 * min_overlap * total, outside),
    )]  # fmt: skip
    return torch.stack(roots).amin(0)


def center_heatmap(cells: Tensor, radius: Tensor, labels: Tensor, mask: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Heat map targets: a Gaussian on each object's cell, the maximum where two of a class overlap.

    Args:
        cells: (B, M, 2) int64, x and y of the center's cell, inside the map where `mask` is True.
        radius: (B, M) int64 cells; sigma is (2 radius + 1) / 6, and the Gaussian is cut off at the radius.
        labels: (B, M) int64.
        mask: (B, M) bool, False for padding.
        shape: classes, X, Y.

    Returns:
        (B, classes, X, Y) float in 0..1.
    """
    heat = torch.zeros(len(cells), *shape, device=cells.device)
    sample, _ = mask.nonzero(as_tuple=True)
    if not len(sample):
        return heat
    cells, radius, labels = cells[mask], radius[mask], labels[mask]
    reach = int(radius.max())
    step = torch.arange(-reach, reach + 1, device=cells.device)
    sigma = (2 * radius + 1) / 6
    # (objects, window, window)
    square = (step[:, None] ** 2 + step**2)[None]
    bump = (-square / (2 * sigma[:, None, None] ** 2)).exp()
    x, y = cells[:, 0, None, None] + step[:, None], cells[:, 1, None, None] + step
    inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[2])
    inside = inside & (torch.maximum(step[:, None].abs(), step.abs()) <= radius[:, None, None])
    cell = (((sample * shape[0] + labels)[:, None, None] * shape[1]) + x) * shape[2] + y
    return heat.flatten().scatter_reduce(0, cell[inside], bump[inside], "amax").view_as(heat)
