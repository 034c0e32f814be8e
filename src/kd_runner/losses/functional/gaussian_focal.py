"""Penalty-reduced focal loss on heat maps of centers, and the maps themselves (Law and Deng, CornerNet, ECCV 2018)."""

import torch
from torch import Tensor


def gaussian_focal(logits: Tensor, target: Tensor) -> Tensor:
    """Focal loss (CornerNet, equation 1; alpha 2, beta 4), summed and divided by the number of cells where target is 1.

    logits, target: any one shape, the target in 0..1. Probabilities are clamped to 1e-4..1-1e-4. A divisor of 0 is 1.
    """
    p = logits.float().sigmoid().clamp(1e-4, 1 - 1e-4)
    center = target == 1
    loss = torch.where(center, -((1 - p) ** 2) * p.log(), -(p**2) * (1 - p).log() * (1 - target) ** 4)
    return loss.sum() / center.sum().clamp(min=1)


def gaussian_radius(length: Tensor, width: Tensor, min_overlap: float) -> Tensor:
    """Radius in cells around a center of a box, sides in cells, of any one shape.

    The smallest of CornerNet's three cases, with CenterNet's roots (divided by 2 and not by 2a): these are what public
    3-D detectors were trained with.
    """
    total, area = length + width, length * width
    touching = total**2 - 4 * area * (1 - min_overlap) / (1 + min_overlap)
    inside = 4 * total**2 - 16 * (1 - min_overlap) * area
    outside = (2 * min_overlap * total) ** 2 - 16 * min_overlap * (min_overlap - 1) * area
    roots = [(b + square.clamp(min=0).sqrt()) / 2 for b, square in (
        (total, touching), (2 * total, inside), (-2 * min_overlap * total, outside),
    )]  # fmt: skip
    return torch.stack(roots).amin(0)


def centre_heatmap(cells: Tensor, radius: Tensor, labels: Tensor, mask: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Targets (B, classes, X, Y): a Gaussian bump on each object's cell, the higher one where two of a class overlap.

    cells (B, M, 2): x, y of the center's cell, inside the map where `mask` (B, M); radius (B, M), whole cells; labels
    (B, M). A bump has sigma (2 radius + 1) / 6 and ends at the radius. shape: classes, X, Y.
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
    place = (((sample * shape[0] + labels)[:, None, None] * shape[1]) + x) * shape[2] + y
    return heat.flatten().scatter_reduce(0, place[inside], bump[inside], "amax").view_as(heat)
