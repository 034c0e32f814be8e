"""Supervision of cross-attention: queries attend to the tokens that show their reference point.

Training a decoder of PETR from random weights is slow at first, because its attention is almost uniform: the position
encodings of queries and of image tokens have nothing in common yet.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_MIN_DEPTH_M = 0.5


class AttentionGuidance(nn.Module):
    """Penalty on attention that misses the projection of the reference point.

        loss = mean over layers and visible queries of max(0, log(min_fraction / a))

    a is the fraction of a query's attention, averaged over heads, on the tokens near the projection of its reference
    point. A query is visible if some camera has such tokens. Maps are probabilities over all tokens of all cameras.

    Args:
        pc_range: range of reference points: minimum x, y, z and maximum x, y, z in meters.
        radius: largest distance in tokens, along rows and along columns, that counts as near.
        min_fraction: required fraction, in (0, 1]; the rest of the attention is free.

    Raises:
        ValueError: `min_fraction` is out of range.
    """

    def __init__(self, pc_range: Sequence[float], radius: float = 2.0, min_fraction: float = 1.0):
        super().__init__()
        if not 0 < min_fraction <= 1:
            raise ValueError(f"min_fraction must be in (0, 1], not {min_fraction}")
        self.min_fraction = min_fraction
        self.register_buffer("pc_range", torch.tensor(list(pc_range)), persistent=False)
        self.pc_range: Tensor
        self.radius = radius

    def forward(
        self, maps: Sequence[Tensor], references: Tensor, features: Tensor, images: Tensor, lidar2img: Tensor
    ) -> Tensor:
        """Compute the loss.

        Args:
            maps: attention maps of the layers, each `(B, heads, Q, tokens)`, tokens in the order camera, row, column.
            references: `(B, Q, 3)`, normalized to 0..1 of `pc_range`.
            features: `(B * N, C, rows, columns)` of N cameras; only the size is used.
            images: `(B, N, 3, H, W)`; only the size is used.
            lidar2img: `(B, N, 4, 4)`, LiDAR frame to pixels.

        Returns:
            Scalar, in nats.
        """
        near = self._near(references.detach().float(), lidar2img, images.shape[-2:], features.shape[-2:])
        visible = near.any(-1)
        fractions = [(m.float().mean(1) * near).sum(-1).clamp(min=1e-6) for m in maps]
        layers = [((self.min_fraction / a).log().clamp(min=0) * visible).sum() for a in fractions]
        return torch.stack(layers).mean() / visible.sum().clamp(min=1)

    def _near(self, references: Tensor, lidar2img: Tensor, size: torch.Size, grid: torch.Size) -> Tensor:
        """Tokens near the projections of the reference points, `(B, Q, tokens)` bool."""
        low, high = self.pc_range[:3], self.pc_range[3:]
        points = references * (high - low) + low
        pixel = torch.einsum("bnij,bqj->bnqi", lidar2img[..., :3, :3], points) + lidar2img[:, :, None, :3, 3]
        depth = pixel[..., 2]
        stride = torch.tensor([size[1] / grid[1], size[0] / grid[0]], device=depth.device)
        token = pixel[..., :2] / depth.clamp(min=_MIN_DEPTH_M)[..., None] / stride - 0.5
        near_column = (token[..., :1] - torch.arange(grid[1], device=depth.device)).abs() < self.radius
        near_row = (token[..., 1:] - torch.arange(grid[0], device=depth.device)).abs() < self.radius
        near = near_row[..., :, None] & near_column[..., None, :] & (depth > _MIN_DEPTH_M)[..., None, None]
        return near.transpose(1, 2).flatten(2)
