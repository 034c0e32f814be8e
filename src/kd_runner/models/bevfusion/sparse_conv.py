"""Submanifold and strided sparse 3-D convolution by gather, matrix product and scatter, in plain torch.

Sources: Graham et al., "3D Semantic Segmentation with Submanifold Sparse Convolutional Networks", CVPR 2018; Yan et
al., "SECOND", Sensors 2018. Classes, arguments and weight layout are those of spconv 2, so that `backends.load` can
put that library in their place.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from kd_runner.models.bevfusion.neighbors import Pairs, strided_pairs, submanifold_pairs


@dataclass(eq=False)
class SparseConvTensor:
    """Features on the occupied cells of a grid.

    Attributes:
        features: (V, C).
        indices: sample, x, y, z of each row (V, 4), in ascending order without repeats.
        spatial_shape: cells along x, y, z.
        pairs: neighbor tables made so far, by indice_key; they belong to these indices.
    """

    features: Tensor
    indices: Tensor
    spatial_shape: tuple[int, int, int]
    batch_size: int
    pairs: dict[str, Pairs] = field(default_factory=dict)

    def replace_feature(self, features: Tensor) -> "SparseConvTensor":
        """Other features on the same cells.

        Args:
            features: `(V, C)`.

        Returns:
            A new tensor that shares cells and neighbor tables.
        """
        return replace(self, features=features)

    def dense(self) -> Tensor:
        """The whole grid, zero where no cell is occupied.

        Returns:
            `(B, C, X, Y, Z)`.
        """
        grid = self.features.new_zeros(self.batch_size, *self.spatial_shape, self.features.shape[1])
        grid = grid.index_put(tuple(self.indices.unbind(1)), self.features)
        return grid.permute(0, 4, 1, 2, 3)


class GatherGemmScatter(torch.autograd.Function):
    """`out[j] = sum over offsets k and pairs (i, j) of k: features[i] @ weight[k]`.

    Written by hand so that only the features are kept for the backward pass, and not one gathered copy per offset.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, pairs: Pairs) -> Tensor:
        """Compute the sum.

        Args:
            ctx: autograd's context.
            features: `(V, in)`.
            weight: `(K, in, out)`, one matrix per offset.
            pairs: rows that meet under each offset.

        Returns:
            `(V_out, out)`.
        """
        ctx.save_for_backward(features, weight)
        ctx.pairs = pairs
        return _scatter_sum(features, weight, zip(pairs.inputs, pairs.outputs), len(pairs.indices))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of the features and of the weight.

        Args:
            ctx: autograd's context.
            gradient: of the output, `(V_out, out)`.

        Returns:
            `(V, in)` and `(K, in, out)`, None where not needed; None for the pairs.
        """
        features, weight = ctx.saved_tensors
        pairs = ctx.pairs
        gradient = gradient.contiguous()
        to_features = to_weight = None
        if ctx.needs_input_grad[0]:
            turned = weight.transpose(1, 2)
            to_features = _scatter_sum(gradient, turned, zip(pairs.outputs, pairs.inputs), len(features))
        if ctx.needs_input_grad[1]:
            to_weight = torch.zeros_like(weight)
            for k, (row, column) in enumerate(zip(pairs.inputs, pairs.outputs)):
                if len(row):
                    to_weight[k] = features.index_select(0, row).T @ gradient.index_select(0, column)
        return to_features, to_weight, None


def _scatter_sum(features: Tensor, weight: Tensor, pairs: Any, rows: int) -> Tensor:
    out = features.new_zeros(rows, weight.shape[2])
    for matrix, (source, target) in zip(weight, pairs):
        if len(source):
            # Within one offset no target repeats: the sum has one order, on a GPU too.
            out.index_add_(0, target, features.index_select(0, source) @ matrix)
    return out


class _SparseConv(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        *,
        bias: bool = False,
        indice_key: str | None = None,
    ):
        super().__init__()
        if bias:
            raise ValueError("bias: a batch normalization follows each sparse convolution here")
        self.kernel_size, self.stride, self.padding = _triple(kernel_size), _triple(stride), _triple(padding)
        self.indice_key = indice_key
        self.weight = nn.Parameter(torch.empty(out_channels, *self.kernel_size, in_channels))
        bound = (in_channels * self.weight[0, ..., 0].numel()) ** -0.5  # as nn.Conv3d initializes
        nn.init.uniform_(self.weight, -bound, bound)

    def _convolve(self, features: Tensor, pairs: Pairs) -> Tensor:
        weight = self.weight.flatten(1, 3).permute(1, 2, 0).contiguous()
        # Autocast would mix half precision products with a sum in single precision.
        with torch.autocast(features.device.type, enabled=False):
            return GatherGemmScatter.apply(features, weight.to(features.dtype), pairs)

    def extra_repr(self) -> str:
        out, *kernel, channels = self.weight.shape
        return f"{channels}, {out}, kernel_size={tuple(kernel)}, stride={self.stride}, padding={self.padding}"


class SubMConv3d(_SparseConv):
    """3 x 3 x 3 convolution that writes to the occupied cells only, so that the set does not grow.

    Weight (out, 3, 3, 3, in), its axes in the order of the coordinates. Layers with the same `indice_key` share a table
    of neighbors.

    Args:
        *args: as for spconv's class: in_channels, out_channels, kernel_size 3, stride 1.
        **kwargs: padding, bias (False) and `indice_key`.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.kernel_size != (3, 3, 3) or self.stride != (1, 1, 1):
            raise ValueError(f"SubMConv3d: kernel {self.kernel_size}, stride {self.stride}; only 3 and 1 are there")

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        """Convolve.

        Args:
            x: features `(V, in_channels)`.

        Returns:
            Features `(V, out_channels)` on the same cells.
        """
        pairs = x.pairs.get(self.indice_key) if self.indice_key else None
        if pairs is None:
            pairs = submanifold_pairs(x.indices, x.spatial_shape)
            if self.indice_key:
                x.pairs[self.indice_key] = pairs
        return x.replace_feature(self._convolve(x.features, pairs))


class SparseConv3d(_SparseConv):
    """Strided convolution that writes to every cell which an occupied one reaches. Weight (out, k0, k1, k2, in)."""

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        """Convolve.

        Args:
            x: features `(V, in_channels)`.

        Returns:
            Features `(V_out, out_channels)` on the cells of the output grid that are reached.
        """
        pairs, shape = strided_pairs(x.indices, x.spatial_shape, self.kernel_size, self.stride, self.padding)
        return SparseConvTensor(self._convolve(x.features, pairs), pairs.indices, shape, x.batch_size)


def _triple(value: int | Sequence[int]) -> tuple[int, int, int]:
    x, y, z = itertools.repeat(value, 3) if isinstance(value, int) else value
    return x, y, z
