"""The sparse voxel encoder of BEVFusion and TransFusion-L: residual submanifold blocks between strided convolutions."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kd_runner.models.bevfusion import backends
from kd_runner.models.bevfusion.neighbors import Triple, conv_shape
from kd_runner.models.bevfusion.voxels import Voxels

norm = partial(nn.BatchNorm1d, eps=1e-3, momentum=0.01)


class SparseSequential(nn.Sequential):
    """Convolution, normalization, activation: the first one on the sparse tensor, the others on its features."""

    def forward(self, x: Any) -> Any:
        """Apply the layers in turn.

        Args:
            x: a sparse tensor.

        Returns:
            A sparse tensor.
        """
        conv, *rest = self
        x = conv(x)
        features = x.features
        for module in rest:
            features = module(features)
        return x.replace_feature(features)


class SparseBasicBlock(nn.Module):
    """Two submanifold convolutions around a shortcut (He et al. 2016, without a change of width).

    Args:
        backend: module of the sparse convolutions, see `backends.load`.
        channels: width.
        indice_key: name of the neighbor table that the convolutions share.
    """

    def __init__(self, backend: Any, channels: int, indice_key: str):
        super().__init__()
        self.conv1 = backend.SubMConv3d(channels, channels, 3, padding=1, bias=False, indice_key=indice_key)
        self.bn1 = norm(channels)
        self.conv2 = backend.SubMConv3d(channels, channels, 3, padding=1, bias=False, indice_key=indice_key)
        self.bn2 = norm(channels)

    def forward(self, x: Any) -> Any:
        """Apply the block.

        Args:
            x: a sparse tensor with `channels` features.

        Returns:
            The same cells and width.
        """
        shortcut = x.features
        x = self.conv1(x)
        x = x.replace_feature(self.bn1(x.features).relu())
        x = self.conv2(x)
        return x.replace_feature((self.bn2(x.features) + shortcut).relu())


class SparseEncoder(nn.Module):
    """Voxels to a bird's-eye map `(B, out_channels * depth, X / s, Y / s)`, dimension 2 along x and 3 along y.

    A stage has two residual blocks; all but the last end in a convolution of stride 2, hence s = 2^(stages - 1). The
    last of these does not pad z. After a convolution along z the cells of each column become channels, z fastest.

    Args:
        grid: cells along x, y, z, before the spare layer on top of z that the public net has.
        in_channels: features of a voxel.
        channels: of each stage.
        out_channels: of the last convolution, per cell along z.
        backend: name of the library for sparse convolution, see `backends.load`.

    Raises:
        ValueError: a grid that does not halve evenly in x and y, or is too low in z; an unknown backend.
    """

    def __init__(
        self,
        grid: Triple,
        in_channels: int = 5,
        channels: Sequence[int] = (16, 32, 64, 128),
        out_channels: int = 128,
        backend: str = "torch",
    ):
        super().__init__()
        library = backends.load(backend)
        self.tensor = library.SparseConvTensor
        self.index_dtype = torch.int64 if backend == "torch" else torch.int32
        self.stride = 2 ** (len(channels) - 1)
        if grid[0] % self.stride or grid[1] % self.stride:
            raise ValueError(f"{grid[0]} x {grid[1]} voxels cannot be divided by {self.stride}: change the range")
        self.sparse_shape = shape = (grid[0], grid[1], grid[2] + 1)
        self.conv_input = SparseSequential(
            library.SubMConv3d(in_channels, channels[0], 3, padding=1, bias=False, indice_key="stage1"),
            norm(channels[0]),
            nn.ReLU(),
        )
        self.encoder_layers = nn.Sequential()
        for stage, width in enumerate(channels, start=1):
            layers: list[nn.Module] = [SparseBasicBlock(library, width, f"stage{stage}") for _ in range(2)]
            if stage < len(channels):
                wider = channels[stage]
                padding = (1, 1, 1 if stage < len(channels) - 1 else 0)
                conv = library.SparseConv3d(width, wider, 3, 2, padding=padding, bias=False, indice_key=f"down{stage}")
                layers.append(SparseSequential(conv, norm(wider), nn.ReLU()))
                shape = conv_shape(shape, (3, 3, 3), (2, 2, 2), padding)
            self.encoder_layers.add_module(f"encoder_layer{stage}", nn.Sequential(*layers))
        self.conv_out = SparseSequential(
            library.SparseConv3d(
                channels[-1], out_channels, (1, 1, 3), (1, 1, 2), padding=0, bias=False, indice_key="out"
            ),
            norm(out_channels),
            nn.ReLU(),
        )
        shape = conv_shape(shape, (1, 1, 3), (1, 1, 2), (0, 0, 0))
        self.bev_shape, self.bev_channels = shape[:2], out_channels * shape[2]

    def forward(self, voxels: Voxels, batch_size: int) -> Tensor:
        """Encode voxels.

        Args:
            voxels: occupied cells and their features.
            batch_size: number of samples B.

        Returns:
            The map `(B, out_channels * depth, X / s, Y / s)`.
        """
        indices = voxels.coordinates.to(self.index_dtype)
        x = self.tensor(voxels.features, indices, self.sparse_shape, batch_size)
        x = self.conv_out(self.encoder_layers(self.conv_input(x)))
        return x.dense().permute(0, 1, 4, 2, 3).flatten(1, 2)
