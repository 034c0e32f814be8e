"""Blocks of the ROI network. LayerNorm only: the masks of different ROIs are independent."""

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn


def conv_norm_relu(in_channels: int, channels: int, kernel_size: int = 3) -> nn.Sequential:
    """Convolution, layer norm over the channels of each pixel, ReLU; height and width stay the same.

    Args:
        in_channels: of the input.
        channels: of the output.
        kernel_size: side of the kernel in pixels, odd.

    Returns:
        The layers.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2), LayerNorm2d(channels), nn.ReLU()
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with layer norm and a shortcut (He et al. 2016, figure 2), at constant shape.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm_relu(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), LayerNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: (R, channels, h, w).

        Returns:
            The same shape.
        """
        return torch.relu(x + self.second(self.first(x)))


class SpatialAttention(nn.Module):
    """Spatial attention from the mean and maximum over channels (Woo et al. 2018, CBAM, equation 3).

    Args:
        kernel_size: side of the kernel in pixels, odd.
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the pixels.

        Args:
            x: (R, C, h, w).

        Returns:
            The same shape.
        """
        statistics = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * self.conv(statistics).sigmoid()


class ChannelAttention(nn.Module):
    """Channel attention from the channels' means (Hu et al. 2018, squeeze and excitation).

    Args:
        channels: of input and output.
        reduction: factor by which the hidden layer is narrower; it has at least 8 units.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.scale = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels.

        Args:
            x: (R, channels, h, w).

        Returns:
            The same shape.
        """
        return x * self.scale(x.mean((2, 3), keepdim=True)).sigmoid()
