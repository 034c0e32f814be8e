"""What the tests of the distillation methods share: random features, and values with gradients in float64."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def leaf(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_()


def assert_same(
    loss: Callable[..., Tensor], reference: Callable[..., Tensor], student: Tensor, *rest: Any, rtol: float = 1e-9
) -> None:
    """Value and gradient with respect to the student are those of the reference."""
    one, two = leaf(student), leaf(student)
    value, expected = loss(one, *rest), reference(two, *rest)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected.reshape(()), rtol=rtol, atol=1e-12)
    assert two.grad.abs().max() > 0
    torch.testing.assert_close(one.grad, two.grad, rtol=1e3 * rtol, atol=rtol * float(two.grad.abs().max()))


def built(loss: nn.Module, *arguments: Any) -> Any:
    """The loss in float64, its layers sized from the arguments."""
    torch.manual_seed(0)
    loss.build(*arguments)
    return loss.double()
