"""Which input cell meets which output cell under each offset of a kernel: sorted keys and binary search."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Pairs:
    """Rows that meet. Offset k of the kernel (x slowest, z fastest) takes `inputs[k]` to `outputs[k]`, both int64.

    Within one offset no row repeats on either side. `indices (V_out, 4)` are the output cells.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]
    indices: Tensor


def submanifold_pairs(indices: Tensor, shape: Triple) -> Pairs:
    """Neighbors among occupied cells in the 3 x 3 x 3 cube around each.

    z runs fastest, so the three cells of a column (dx, dy) have consecutive keys and one search finds all; offsets that
    are mirror images share their pairs, the sides swapped. Five searches do for 27 offsets.

    Args:
        indices: sample, x, y, z of each cell, `(V, 4)`, ascending.
        shape: cells of the grid along x, y, z.

    Returns:
        The pairs of each of the 27 offsets.

    Raises:
        ValueError: indices that do not ascend strictly.
    """
    # An empty layer around the grid makes neighbors beyond its faces plain misses.
    stride_y, stride_x = shape[2] + 2, (shape[1] + 2) * (shape[2] + 2)
    sample, x, y, z = indices.unbind(1)
    keys = sample * ((shape[0] + 2) * stride_x) + (x + 1) * stride_x + (y + 1) * stride_y + z + 1
    if not (keys[1:] > keys[:-1]).all():
        raise ValueError("indices: must ascend by sample, x, y, z without repeats")
    searched = torch.cat((keys, keys.new_full((1,), torch.iinfo(torch.int64).max)))
    inputs: list[Tensor] = [keys] * 27
    outputs: list[Tensor] = [keys] * 27
    for dx, dy in ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1)):
        target = keys + (dx * stride_x + dy * stride_y - 1)
        row = torch.searchsorted(keys, target)
        for dz in (-1, 0, 1):
            match = searched[row] == target + (dz + 1)
            here, there = match.nonzero()[:, 0], row[match]
            offset = (dx + 1) * 9 + (dy + 1) * 3 + dz + 1
            inputs[offset], outputs[offset] = there, here
            inputs[26 - offset], outputs[26 - offset] = here, there
            row = row + match
    return Pairs(inputs, outputs, indices)


def strided_pairs(
    indices: Tensor, shape: Triple, kernel: Triple, stride: Triple, padding: Triple
) -> tuple[Pairs, Triple]:
    """Pairs of a strided convolution.

    Args:
        indices: sample, x, y, z of each occupied cell, `(V, 4)`.
        shape: cells of the grid along x, y, z.
        kernel: cells of the kernel along x, y, z.
        stride: along x, y, z.
        padding: along x, y, z.

    Returns:
        The pairs of each offset, and the shape of the output grid.

    Raises:
        ValueError: the kernel does not fit into the grid.
    """
    out_shape = conv_shape(shape, kernel, stride, padding)
    # Along each axis: where offset k sends each cell, and whether it may.
    moves = []
    for axis in range(3):
        shifted = [indices[:, axis + 1] + padding[axis] - k for k in range(kernel[axis])]
        to = [position // stride[axis] for position in shifted]
        fits = [(p >= 0) & (p % stride[axis] == 0) & (t < out_shape[axis]) for p, t in zip(shifted, to, strict=True)]
        moves.append(list(zip(fits, to)))
    inputs, keys = [], []
    for (fits_x, x), (fits_y, y), (fits_z, z) in itertools.product(*moves):
        row = (fits_x & fits_y & fits_z).nonzero()[:, 0]
        inputs.append(row)
        keys.append(((indices[row, 0] * out_shape[0] + x[row]) * out_shape[1] + y[row]) * out_shape[2] + z[row])
    unique, inverse = torch.unique(torch.cat(keys), return_inverse=True)
    outputs = list(inverse.split([len(row) for row in inputs]))
    rest, z = unique // out_shape[2], unique % out_shape[2]
    rest, y = rest // out_shape[1], rest % out_shape[1]
    cells = torch.stack((rest // out_shape[0], rest % out_shape[0], y, z), 1)
    return Pairs(inputs, outputs, cells), out_shape


def conv_shape(shape: Triple, kernel: Triple, stride: Triple, padding: Triple) -> Triple:
    """Shape of a convolution's output grid.

    Args:
        shape: cells of the input grid along x, y, z.
        kernel: cells of the kernel along x, y, z.
        stride: along x, y, z.
        padding: along x, y, z.

    Returns:
        Cells along x, y, z.

    Raises:
        ValueError: the kernel does not fit into the grid.
    """
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape, kernel, stride, padding))
    if min(out) < 1:
        raise ValueError(f"a grid of {shape} cells is too small for kernel {kernel} with padding {padding}")
    return out[0], out[1], out[2]
