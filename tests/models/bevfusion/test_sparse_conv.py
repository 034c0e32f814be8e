"""Sparse convolutions against torch's dense ones."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_runner.models.bevfusion import backends
from kd_runner.models.bevfusion.sparse_conv import SparseConv3d, SparseConvTensor, SubMConv3d

SHAPE = (6, 5, 7)


def sparse(channels: int = 3, fraction: float = 0.25, seed: int = 0) -> SparseConvTensor:
    noise = torch.Generator().manual_seed(seed)
    indices = (torch.rand(2, *SHAPE, generator=noise) < fraction).nonzero()
    features = torch.randn(len(indices), channels, generator=noise, dtype=torch.float64)
    return SparseConvTensor(features.requires_grad_(), indices, SHAPE, 2)


def occupied(x: SparseConvTensor) -> Tensor:
    return x.replace_feature(torch.ones(len(x.indices), 1, dtype=torch.float64)).dense()


def check_equal(layer: SubMConv3d | SparseConv3d, x: SparseConvTensor, stride: object, padding: object) -> None:
    """Values on the output's cells, and the gradients of a random projection of them."""
    out = layer.double()(x)
    dense = F.conv3d(x.dense(), layer.weight.permute(0, 4, 1, 2, 3), stride=stride, padding=padding)
    assert out.dense().shape == dense.shape
    dense = dense * occupied(out)
    torch.testing.assert_close(out.dense(), dense)
    direction = torch.randn(dense.shape, generator=torch.Generator().manual_seed(9), dtype=dense.dtype)
    expected = torch.autograd.grad((dense * direction).sum(), [x.features, layer.weight])
    actual = torch.autograd.grad((out.dense() * direction).sum(), [x.features, layer.weight])
    for own, reference in zip(actual, expected):
        torch.testing.assert_close(own, reference)


@pytest.mark.parametrize("fraction", [0.02, 0.25, 1.0])
def test_submanifold_is_the_dense_one_on_its_own_cells(fraction: float) -> None:
    x = sparse(fraction=fraction)
    layer = SubMConv3d(3, 4, 3, padding=1)
    assert torch.equal(layer.double()(x).indices, x.indices)
    check_equal(layer, x, 1, 1)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 2, 1), (3, 2, (1, 1, 0)), ((1, 1, 3), (1, 1, 2), 0), ((3, 1, 2), (2, 1, 1), (0, 0, 1))],
)
def test_strided_is_the_dense_one_and_zero_elsewhere(kernel: object, stride: object, padding: object) -> None:
    x = sparse(fraction=0.1)
    layer = SparseConv3d(3, 4, kernel, stride, padding)
    check_equal(layer, x, stride, padding)
    reach = torch.ones(1, 1, *layer.kernel_size, dtype=torch.float64)
    reached = F.conv3d(occupied(x), reach, stride=stride, padding=padding) > 0
    assert torch.equal(occupied(layer(x)) > 0, reached)


def test_layers_of_one_key_share_a_table() -> None:
    x = sparse()
    first, second = (SubMConv3d(3, 3, 3, indice_key="a").double() for _ in range(2))
    second(first(x))
    assert list(x.pairs) == ["a"]
    assert SubMConv3d(3, 3, 3, indice_key="b").double()(x).pairs.keys() == {"a", "b"}


def test_unsorted_cells_are_refused() -> None:
    x = sparse()
    flipped = SparseConvTensor(x.features, x.indices.flip(0), SHAPE, 2)
    with pytest.raises(ValueError, match="ascend"):
        SubMConv3d(3, 3, 3).double()(flipped)


def test_backends_are_imported_when_asked_for() -> None:
    assert backends.load("torch").SubMConv3d is SubMConv3d
    with pytest.raises(ValueError, match="Did you mean 'spconv'"):
        backends.load("spcon")


def test_a_missing_backend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.BACKENDS, "spconv", "a_package_that_is_not_there.pytorch")
    with pytest.raises(ValueError, match=r"backend=spconv .*pip install spconv.*backend=torch"):
        backends.load("spconv")
