"""Supervision of cross-attention: a query looks where its reference point is seen.

Attention that starts out blind, as between the two unlike position encodings of PETR, costs a decoder most of its
training: until it looks at the right tokens nothing tells it what they hold.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_NEAR_M = 0.5


class AttentionGuidance(nn.Module):
    """log(enough / share), while above 0, of the share of a query's attention, mean over heads, that falls on tokens
    near its reference point's image; mean over the queries that some camera sees, and over layers.

    Args:
        pc_range: of reference points: x, y, z from and to in m.
        reach: distance in tokens, along rows and along columns, that counts as near.
        enough: share in 0..1 of the attention; the rest is free, to follow an object that the reference point misses.

    Raises:
        ValueError: `enough` out of range.
    """

    def __init__(self, pc_range: Sequence[float], reach: float = 2.0, enough: float = 1.0):
        super().__init__()
        if not 0 < enough <= 1:
            raise ValueError(f"enough: {enough} is no share in 0..1")
        self.enough = enough
        self.register_buffer("pc_range", torch.tensor(list(pc_range)), persistent=False)
        self.pc_range: Tensor
        self.reach = reach

    def forward(
        self, maps: Sequence[Tensor], references: Tensor, features: Tensor, images: Tensor, lidar2img: Tensor
    ) -> Tensor:
        """Scalar in nats.

        Args:
            maps: a layer each, `(B, heads, Q, tokens)`, tokens camera by camera and row by row.
            references: `(B, Q, 3)` in 0..1 of `pc_range`.
            features: `(B * N, C, rows, columns)`, images: `(B, N, 3, H, W)`, for their sizes.
            lidar2img: `(B, N, 4, 4)` to pixels of the images.
        """
        near = self._near(references.detach().float(), lidar2img, images.shape[-2:], features.shape[-2:])
        seen = near.any(-1)
        shares = [(m.float().mean(1) * near).sum(-1).clamp(min=1e-6) for m in maps]
        layers = [((self.enough / share).log().clamp(min=0) * seen).sum() for share in shares]
        return torch.stack(layers).mean() / seen.sum().clamp(min=1)

    def _near(self, references: Tensor, lidar2img: Tensor, size: torch.Size, grid: torch.Size) -> Tensor:
        """`(B, Q, tokens)` bool."""
        low, high = self.pc_range[:3], self.pc_range[3:]
        points = references * (high - low) + low
        pixel = torch.einsum("bnij,bqj->bnqi", lidar2img[..., :3, :3], points) + lidar2img[:, :, None, :3, 3]
        depth = pixel[..., 2]
        stride = torch.tensor([size[1] / grid[1], size[0] / grid[0]], device=depth.device)
        place = pixel[..., :2] / depth.clamp(min=_NEAR_M)[..., None] / stride - 0.5
        across = (place[..., :1] - torch.arange(grid[1], device=depth.device)).abs() < self.reach
        down = (place[..., 1:] - torch.arange(grid[0], device=depth.device)).abs() < self.reach
        near = down[..., :, None] & across[..., None, :] & (depth > _NEAR_M)[..., None, None]
        return near.transpose(1, 2).flatten(2)
