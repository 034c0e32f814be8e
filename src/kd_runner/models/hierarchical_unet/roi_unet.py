"""Small U-Net for background and foreground inside a ROI."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_runner.models.hierarchical_unet.blocks import ResidualBlock, conv_norm_relu


class ROIUNet(nn.Module):
    """U-Net (Ronneberger et al. 2015): features (R, in_channels, h, w) to background/foreground logits (R, 2, h, w).

    Three resolutions of `base`, 2 `base` and 4 `base` channels, two residual blocks per level, and a sigmoid gate on
    the deepest map.

    Args:
        in_channels: channels of the input.
        base: channels at full resolution.
    """

    def __init__(self, in_channels: int, base: int = 64) -> None:
        super().__init__()
        wide, deep = 2 * base, 4 * base
        self.down1 = nn.Sequential(conv_norm_relu(in_channels, base), *_residual(base))
        self.down2 = nn.Sequential(*_residual(base), conv_norm_relu(base, wide))
        self.down3 = nn.Sequential(*_residual(wide), conv_norm_relu(wide, deep))
        self.gate = nn.Sequential(*_residual(deep), conv_norm_relu(deep, deep), nn.Conv2d(deep, deep, 1), nn.Sigmoid())
        self.bottom = nn.Conv2d(deep, deep, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(deep, wide, 2, stride=2)
        self.join2 = nn.Sequential(conv_norm_relu(2 * wide, wide), *_residual(wide))
        self.up1 = nn.ConvTranspose2d(wide, base, 2, stride=2)
        self.join1 = nn.Sequential(conv_norm_relu(2 * base, base), *_residual(base))
        self.classifier = nn.Sequential(conv_norm_relu(base, base // 2), nn.Conv2d(base // 2, 2, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Segment ROIs.

        Args:
            features: (R, in_channels, h, w).

        Returns:
            Logits (R, 2, h, w).
        """
        high = self.down1(features)
        mid = self.down2(F.max_pool2d(high, 2))
        low = self.down3(F.max_pool2d(mid, 2))
        low = self.bottom(low) * self.gate(low)
        mid = self.join2(torch.cat([_as(self.up2(low), mid), mid], dim=1))
        high = self.join1(torch.cat([_as(self.up1(mid), high), high], dim=1))
        return self.classifier(high)


def _residual(channels: int) -> list[nn.Module]:
    return [ResidualBlock(channels), ResidualBlock(channels)]


def _as(x: Tensor, like: Tensor) -> Tensor:
    """Resize `x` to the size of `like`: pooling drops a row of odd sizes."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
