"""CrossEntropy against torch's own and against the formula."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_runner.losses.task_ce import CrossEntropy


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target() -> Tensor:
    target = torch.randint(0, 5, (2, 4, 6), generator=torch.Generator().manual_seed(1))
    target[0, :2] = 255
    return target


def test_equals_torch_with_value_and_gradient(logits: Tensor, target: Tensor) -> None:
    logits_32, logits_64 = logits.clone().requires_grad_(), logits.double().requires_grad_()
    value = CrossEntropy(255)(logits_32, target)
    expected = F.cross_entropy(logits_64, target, ignore_index=255)
    value.backward()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(logits_32.grad, logits_64.grad.float())


def test_a_known_probability_gives_its_logarithm() -> None:
    """Two valid pixels with the right class at 1/2 and 1/8, one ignored: (ln 2 + ln 8) / 2."""
    probabilities = torch.tensor([[[0.5, 0.125, 0.9], [0.5, 0.875, 0.1]]])
    value = CrossEntropy(255)(probabilities.log(), torch.tensor([[0, 0, 255]]))
    assert value.item() == pytest.approx((math.log(2) + math.log(8)) / 2, rel=1e-6)


def test_nothing_but_ignored_pixels_is_zero_not_nan(logits: Tensor) -> None:
    logits.requires_grad_()
    value = CrossEntropy()(logits, torch.full((2, 4, 6), 255))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("huge", [1e4, 3e38])
def test_ignored_pixels_get_exactly_zero_gradient(logits: Tensor, target: Tensor, huge: float) -> None:
    logits[0, 0, 0, 0], logits[0, 1, 0, 0] = huge, -huge
    logits.requires_grad_()
    CrossEntropy()(logits, target).backward()
    gradient = logits.grad.movedim(1, -1)
    assert (gradient[target == 255] == 0).all()
    assert gradient.isfinite().all() and (gradient[target != 255] != 0).all()


def test_another_ignore_index_leaves_255_out_of_it(logits: Tensor, target: Tensor) -> None:
    target[target == 255] = 0
    value = CrossEntropy(ignore_index=0)(logits, target)
    torch.testing.assert_close(value, F.cross_entropy(logits, target, ignore_index=0))


def test_plain_classification(logits: Tensor) -> None:
    value = CrossEntropy()(logits[:, :, 0, 0], torch.tensor([1, 255]))
    torch.testing.assert_close(value, -logits[0, :, 0, 0].log_softmax(0)[1])


def test_sizes_that_differ_are_named(logits: Tensor) -> None:
    with pytest.raises(ValueError, match=r"spatial mismatch: logits \(2, 5, 4, 6\), target \(2, 8, 12\)"):
        CrossEntropy()(logits, torch.zeros(2, 8, 12, dtype=torch.long))


def test_upsample_is_the_cross_entropy_of_the_upsampled_logits() -> None:
    """Also where some images have no label: they are left out, with a gradient of exactly 0."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 2, 2, generator=generator, requires_grad=True)
    target = torch.randint(5, (3, 8, 8), generator=generator)
    target[1] = 255
    large = torch.nn.functional.interpolate(logits, (8, 8), mode="bilinear", align_corners=False)
    torch.nn.functional.cross_entropy(large, target, ignore_index=255).backward()
    expected, logits.grad = logits.grad, None
    CrossEntropy(upsample=True)(logits, target).backward()
    torch.testing.assert_close(logits.grad, expected)
    assert (logits.grad[1] == 0).all()
    with pytest.raises(ValueError, match="spatial mismatch"):
        CrossEntropy()(logits, target)
