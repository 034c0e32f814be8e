"""3-D points along the viewing rays of image patches, the input of PETR's position encoding.

Sources: PETR (Liu et al. 2022, arXiv 2203.05625), LID depth bins of CaDDN (Reading et al. 2021, arXiv 2103.01100).
"""

import torch
from torch import Tensor


def lid_depths(num: int, start_m: float, stop_m: float) -> Tensor:
    """Depth bins with linearly increasing spacing (LID).

    d_i = start + (stop - start) * i * (i + 1) / (num * (num + 1)), i = 0 .. num - 1

    Args:
        num: number of depths.
        start_m: first depth in meters.
        stop_m: depth that bin `num` would have, in meters.

    Returns:
        `(num,)`, meters.
    """
    step = torch.arange(num, dtype=torch.float32)
    return start_m + (stop_m - start_m) / (num * (num + 1)) * step * (step + 1)


def invert_projection(lidar2img: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of a camera projection, as a matrix and an offset.

    Computed by cofactors: ONNX has no matrix inverse, and in float32 this keeps six digits at any focal length (the
    cross products cancel the part of the optical axis that the rows have in common).

    Args:
        lidar2img: `(..., 4, 4)`, LiDAR frame in meters to (u d, v d, d, 1) with pixel (u, v) and depth d; the last row
            is 0, 0, 0, 1.

    Returns:
        Matrix `(..., 3, 3)` and offset `(..., 3)`: point = matrix @ (u d, v d, d) + offset, in the LiDAR frame.
    """
    matrix, offset = lidar2img[..., :3, :3].float(), lidar2img[..., :3, 3].float()
    a, b, c = matrix.unbind(-2)
    bc, ca, ab = _cross(b, c), _cross(c, a), _cross(a, b)
    inverse = torch.stack((bc, ca, ab), dim=-1) / (a * bc).sum(-1)[..., None, None]
    return inverse, -(inverse @ offset[..., None])[..., 0]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a[..., i - 2] * b[..., i - 1] - a[..., i - 1] * b[..., i - 2] for i in range(3)], dim=-1)


def lift_pixels(lidar2img: Tensor, grid: tuple[int, int], stride: int, depths: Tensor) -> Tensor:
    """Points in the LiDAR frame on the rays through the patch centers, one per depth.

    Args:
        lidar2img: `(B, N, 4, 4)`, LiDAR frame to pixels of N cameras.
        grid: rows and columns of patches, from the upper left corner.
        stride: side of a patch in pixels.
        depths: `(D,)`, meters along the optical axis.

    Returns:
        `(B, N, rows * columns, D, 3)`, meters.
    """
    v, u = ((torch.arange(number, device=depths.device) + 0.5) * stride for number in grid)
    pixel = torch.stack((u.expand(grid[0], -1), v[:, None].expand(-1, grid[1])), dim=-1).flatten(0, 1)
    ray = torch.cat((pixel, torch.ones_like(pixel[:, :1])), dim=-1)
    inverse, origin = invert_projection(lidar2img)
    direction = (inverse[..., None, :, :] @ ray[:, :, None])[..., 0]
    return direction[..., None, :] * depths[:, None] + origin[..., None, None, :]
