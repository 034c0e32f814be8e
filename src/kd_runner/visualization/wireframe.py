"""Boxes and lines as edges in space, and what of them a camera sees."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

# Edges of a box as pairs of its corners, which are numbered as in `geometry.boxes3d`.
EDGES = np.array([(a, a | bit) for bit in (1, 2, 4) for a in range(8) if not a & bit])
FRONT = np.array([a >= 4 and b >= 4 for a, b in EDGES])
FLOOR = np.array([4, 6, 2, 0])  # front right, front left, rear left, rear right
_NEAR = 0.3  # meters before the camera


def visible_edges(edges: Array, matrix: Array, width: float, height: float) -> tuple[Array, NDArray[np.intp]]:
    """Project edges, cut off at the border of the image and in front of the camera.

    Args:
        edges: (N, 2, 3), meters.
        matrix: (4, 4), to homogeneous pixels.
        width: of the image.
        height: of the image.

    Returns:
        Pixels (M, 2, 2) as (column, row), and which of the N each came from (M,).
    """
    ends = edges @ matrix[:3, :3].T + matrix[:3, 3]
    which = np.arange(len(edges))
    # Half-spaces of (column * depth, row * depth, depth): inside where the product, less the offset, is positive.
    planes = ((0, 0, 1, _NEAR), (1, 0, 0, 0), (-1, 0, width, 0), (0, 1, 0, 0), (0, -1, height, 0))
    for *normal, offset in planes:
        side = ends @ np.array(normal, float) - offset
        keep = (side > 0).any(1)
        ends, which, side = ends[keep], which[keep], side[keep]
        fraction = side[:, :1] / np.where(side[:, :1] == side[:, 1:], 1, side[:, :1] - side[:, 1:])
        crossing = ends[:, 0] + fraction * (ends[:, 1] - ends[:, 0])
        ends = np.where(side[..., None] > 0, ends, crossing[:, None])
    return ends[..., :2] / ends[..., 2:], which


def polyline_edges(lines: Array) -> Array:
    """Edges of polylines, line by line.

    Args:
        lines: (N, P, D).

    Returns:
        (N * (P - 1), 2, D).
    """
    return np.stack([lines[:, :-1], lines[:, 1:]], 2).reshape(-1, 2, lines.shape[-1])
