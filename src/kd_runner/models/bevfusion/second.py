"""SECOND's 2-D backbone and its feature pyramid (Yan et al., "SECOND", Sensors 2018), as in mmdetection3d."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


class SECOND(nn.Module):
    """A chain of convolution blocks; the output of each is returned.

    A block is a 3 x 3 convolution of the given stride and `layers` more of stride 1.

    Args:
        in_channels: of the input map.
        out_channels: of each block.
        layers: further convolutions of each block.
        strides: of each block, against the one before.

    Raises:
        ValueError: the three lists differ in length.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: Sequence[int] = (128, 256),
        layers: Sequence[int] = (5, 5),
        strides: Sequence[int] = (1, 2),
    ):
        super().__init__()
        if not len(out_channels) == len(layers) == len(strides):
            raise ValueError(f"SECOND: {len(out_channels)} widths, {len(layers)} depths, {len(strides)} strides")
        self.blocks = nn.ModuleList()
        for width, count, stride in zip(out_channels, layers, strides):
            block: list[nn.Module] = []
            for number in range(count + 1):
                block += [
                    nn.Conv2d(
                        width if number else in_channels, width, 3, 1 if number else stride, padding=1, bias=False
                    ),
                    norm(width),
                    nn.ReLU(inplace=True),
                ]
            self.blocks.append(nn.Sequential(*block))
            in_channels = width

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps.

        Args:
            x: `(B, in_channels, H, W)`.

        Returns:
            One map `(B, out_channels[i], ...)` per block, each made from the one before.
        """
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return tuple(maps)


class SECONDFPN(nn.Module):
    """Brings maps of several strides to the finest resolution and concatenates them.

    Args:
        in_channels: of each map.
        out_channels: of each map after its upsampling layer.
        strides: of each map, against the finest.

    Raises:
        ValueError: the three lists differ in length.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: Sequence[int] = (256, 256), strides: Sequence[int] = (1, 2)
    ):
        super().__init__()
        if not len(in_channels) == len(out_channels) == len(strides):
            raise ValueError(f"SECONDFPN: {len(in_channels)} maps, {len(out_channels)} widths, {len(strides)} strides")
        self.out_channels = tuple(out_channels)
        self.deblocks = nn.ModuleList()
        for inner, outer, stride in zip(in_channels, out_channels, strides):
            up: nn.Module
            if stride == 1:
                up = nn.Conv2d(inner, outer, 1, bias=False)
            else:
                up = nn.ConvTranspose2d(inner, outer, stride, stride, bias=False)
            self.deblocks.append(nn.Sequential(up, norm(outer), nn.ReLU(inplace=True)))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Upsample and concatenate.

        Args:
            maps: `(B, in_channels[i], H / strides[i], W / strides[i])`.

        Returns:
            A list of one map, `(B, sum of out_channels, H, W)`.
        """
        return [torch.cat([deblock(level) for deblock, level in zip(self.deblocks, maps, strict=True)], dim=1)]
