"""KLLogits against Hinton's formula and its closed gradient in float64 numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_runner.losses.kl_logits import KLLogits


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    exps = np.exp((logits - logits.max(1, keepdims=True)) / temperature)
    return exps / exps.sum(1, keepdims=True)


def maps(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", range(1, 11))
def test_value_and_gradient_are_those_of_the_formula(temperature: int) -> None:
    """T^2 * mean over valid pixels of sum p log(p / q); d/ds = T (q - p) / valid pixels."""
    student, teacher = maps(2, 5, 3, 4, seed=1).requires_grad_(), maps(2, 5, 3, 4, seed=2)
    mask = maps(2, 3, 4, seed=3) > -1
    value = KLLogits(temperature)(student, teacher, mask)
    value.backward()
    q, p = (softmax(x.detach().double().numpy(), temperature) for x in (student, teacher))
    valid = mask.numpy()
    expected = temperature**2 * (p * np.log(p / q)).sum(1)[valid].mean()
    gradient = temperature * (q - p) * valid[:, None] / valid.sum()
    assert 0 < valid.sum() < valid.size
    assert value.item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(student.grad.numpy(), gradient, rtol=1e-4, atol=1e-7)


def test_direction_is_teacher_to_student() -> None:
    """KL(p || q) of p = (3/4, 1/4) and q = (1/2, 1/2) is not KL(q || p)."""
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 1.0]]).log()
    value = KLLogits(1.0)(student, teacher)
    assert value.item() == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5), rel=1e-6)
    assert value.item() != pytest.approx(0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25), rel=1e-2)


def test_gradient_keeps_its_size_when_the_temperature_grows() -> None:
    """Hinton et al., equation 4: at high T the gradient becomes (s - t) / classes, for logits of zero mean."""
    student, teacher = maps(1, 4, 1, 1, seed=1), maps(1, 4, 1, 1, seed=2)
    student, teacher = (x - x.mean(1, keepdim=True) for x in (student, teacher))
    student.requires_grad_()
    KLLogits(1e3)(student, teacher).backward()
    torch.testing.assert_close(student.grad, (student - teacher).detach() / 4, rtol=2e-2, atol=1e-3)


def test_number_of_pixels_does_not_change_the_value() -> None:
    student, teacher = maps(1, 5, 3, 3, seed=1), maps(1, 5, 3, 3, seed=2)
    loss = KLLogits(4.0)
    tiled = loss(student.repeat(3, 1, 2, 5), teacher.repeat(3, 1, 2, 5))
    torch.testing.assert_close(tiled, loss(student, teacher))


def test_classes_that_nobody_believes_in_do_not_change_the_value() -> None:
    """So the number of classes is no divisor."""
    student, teacher = maps(1, 5, 3, 3, seed=1), maps(1, 5, 3, 3, seed=2)
    impossible = torch.full((1, 15, 3, 3), -1e4)
    loss = KLLogits(4.0)
    more = loss(torch.cat([student, impossible], 1), torch.cat([teacher, impossible], 1))
    torch.testing.assert_close(more, loss(student, teacher))


@pytest.mark.parametrize("huge", [1e4, 1e20, 3e38])
@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_masked_pixels_have_no_say_however_large(huge: float, whose: str, temperature: float) -> None:
    nets = {"student": maps(2, 3, 4, 4, seed=1), "teacher": maps(2, 3, 4, 4, seed=2)}
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = mask[1, 3, 3] = False
    loss = KLLogits(temperature)
    calm = loss(**nets, mask=mask)
    nets[whose][0, :, 1, 2] = torch.tensor([huge, -huge, 0.0])
    nets["student"].requires_grad_()
    value = loss(**nets, mask=mask)
    value.backward()
    gradient = nets["student"].grad.movedim(1, -1)
    assert torch.equal(value, calm)
    assert (gradient[~mask] == 0).all()
    assert gradient.isfinite().all() and (gradient[mask] != 0).all()


def test_huge_valid_logits_stay_finite() -> None:
    student, teacher = maps(1, 3, 2, 2, seed=1, scale=1e5).requires_grad_(), maps(1, 3, 2, 2, seed=2, scale=1e5)
    value = KLLogits(4.0)(student, teacher)
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


def test_all_masked_is_zero_with_zero_gradient() -> None:
    student, teacher = maps(2, 3, 4, 4, seed=1).requires_grad_(), maps(2, 3, 4, 4, seed=2)
    value = KLLogits(4.0)(student, teacher, torch.zeros(2, 4, 4, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_teacher_gets_no_gradient() -> None:
    student, teacher = maps(2, 3, seed=1).requires_grad_(), maps(2, 3, seed=2).requires_grad_()
    KLLogits(4.0)(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_half_precision_logits_are_compared_in_float32() -> None:
    student, teacher = maps(2, 5, 8, 8, seed=1).bfloat16(), maps(2, 5, 8, 8, seed=2).bfloat16()
    value = KLLogits(4.0)(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, KLLogits(4.0)(student.float(), teacher.float()))


@pytest.mark.parametrize(
    ("teacher", "mask", "message"),
    [
        ((2, 7, 4, 4), None, "class-count mismatch: student has 5, teacher 7"),
        ((2, 5, 8, 8), None, r"spatial mismatch: student \(2, 5, 4, 4\), teacher \(2, 5, 8, 8\)"),
        ((2, 5, 4, 4), (2, 8, 8), r"spatial mismatch: mask \(2, 8, 8\)"),
    ],
)
def test_what_does_not_fit_is_named(teacher: tuple, mask: tuple | None, message: str) -> None:
    mask = None if mask is None else torch.ones(mask, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        KLLogits()(maps(2, 5, 4, 4), maps(*teacher), mask)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0, not"):
        KLLogits(temperature)


def test_resize_compares_at_the_students_own_size() -> None:
    """As if the teacher's logits had been resized before; of the mask every second pixel of both sides counts."""
    student, teacher = maps(2, 5, 4, 4, seed=1), maps(2, 5, 2, 2, seed=2)
    mask = maps(2, 8, 8, seed=3) > 0
    value = KLLogits(2.0, resize=True)(student, teacher, mask)
    resized = torch.nn.functional.interpolate(teacher, (4, 4), mode="bilinear", align_corners=False)
    assert torch.equal(value, KLLogits(2.0)(student, resized, mask[:, 1::2, 1::2]))
    with pytest.raises(ValueError, match="spatial mismatch"):
        KLLogits(2.0)(student, teacher)
