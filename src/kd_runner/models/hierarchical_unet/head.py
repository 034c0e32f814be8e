"""The ROI head: background/foreground, then target/non-target, with contour and distance branches."""

from collections.abc import Sequence

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from kd_runner.models.hierarchical_unet.blocks import ChannelAttention, ResidualBlock, SpatialAttention, conv_norm_relu
from kd_runner.models.hierarchical_unet.roi_unet import ROIUNet


class HierarchicalHead(nn.Module):
    """Head that classifies background or foreground first, then target or non-target within the foreground.

    Branch A gives logits A of (background, foreground). They gate the features of branch B, which gives logits B of
    (target, non-target). With p = softmax(A)[foreground] the logits of background, target, non-target are

        A0,  A1 + p B0,  A1 + p B1

    so that B has no effect where there is no foreground.

    Args:
        channels: channels of the input and of the hidden features; a multiple of 16, at least 32.
        mask_size: (height, width) of the masks.
        dropout: probability of dropping a channel in training.
    """

    def __init__(self, channels: int, mask_size: Sequence[int], dropout: float = 0.1) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        # Layer norm over two channels is a step function; use at least 16.
        hidden = max(16, channels // 8)
        self.mask_size = (mask_size[0], mask_size[1])
        self.shared = nn.Sequential(
            conv_norm_relu(channels, channels),
            nn.Dropout2d(dropout),
            ResidualBlock(channels),
            nn.Dropout2d(dropout),
            ResidualBlock(channels),
        )
        self.bg_fg = ROIUNet(channels, base=quarter)
        self.bg_fg_up = nn.Sequential(
            nn.ConvTranspose2d(2, hidden, 2, stride=2), LayerNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, 2, 1)
        )
        self.gate = nn.Sequential(
            nn.Conv2d(2, quarter, 1),
            nn.ReLU(),
            nn.Dropout2d(dropout / 2),
            nn.Conv2d(quarter, half, 1),
            nn.ReLU(),
            nn.Conv2d(half, channels, 1),
            nn.Sigmoid(),
        )
        self.target_nontarget = nn.Sequential(
            ResidualBlock(channels),
            SpatialAttention(),
            nn.Dropout2d(dropout),
            nn.ConvTranspose2d(channels, half, 2, stride=2),
            LayerNorm2d(half),
            nn.ReLU(),
            ChannelAttention(half),
            nn.Dropout2d(dropout),
            ResidualBlock(half),
            nn.Conv2d(half, 2, 1),
        )
        self.contour = nn.Sequential(
            conv_norm_relu(channels, quarter), conv_norm_relu(quarter, quarter), nn.Conv2d(quarter, 1, 1)
        )
        self.distance = nn.Sequential(conv_norm_relu(channels, half), ResidualBlock(half), nn.Conv2d(half, 1, 1))
        self.threshold = nn.Parameter(torch.tensor(0.3))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Segment ROIs.

        Args:
            features: (R, channels, h, w).

        Returns:
            The outputs described in `HierarchicalUNet`.
        """
        shared = self.shared(features)
        low = self.bg_fg(shared)
        bg_fg = self._resize(self.bg_fg_up(low))
        target_nontarget = self._resize(self.target_nontarget(shared * self.gate(low)))
        foreground = bg_fg.softmax(1)[:, 1:]
        distance = self._resize(self.distance(shared))
        return {
            "logits": torch.cat([bg_fg[:, :1], bg_fg[:, 1:] + foreground * target_nontarget], dim=1),
            "bg_fg": bg_fg,
            "target_nontarget": target_nontarget,
            "contour": self._resize(self.contour(shared)),
            "distance": distance,
            "distance_mask": 10 * (distance - self.threshold),
        }

    def _resize(self, x: Tensor) -> Tensor:
        if x.shape[-2:] == self.mask_size:
            return x
        return F.interpolate(x, self.mask_size, mode="bilinear", align_corners=False)
