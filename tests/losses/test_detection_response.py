"""DetectionResponse against a sum over single Bernoulli variables, and what its weights are for."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_runner.losses.detection_response import DetectionResponse, _weighted_mean


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(student: Tensor, teacher: Tensor, codes: Tensor, teacher_codes: Tensor, t: float, focus: float) -> float:
    """Query by query, class by class."""
    scores, score_weights, boxes, box_weights = [], [], [], []
    for query in np.ndindex(*student.shape[:-1]):
        s, b = student[query].double().numpy(), teacher[query].double().numpy()
        p, q = 1 / (1 + np.exp(-b / t)), 1 / (1 + np.exp(-s / t))
        scores.append(t**2 * sum(a * math.log(a / c) + (1 - a) * math.log((1 - a) / (1 - c)) for a, c in zip(p, q)))
        score_weights.append((1 / (1 + math.exp(-max(b.max(), s.max())))) ** focus)
        boxes.append((codes[query] - teacher_codes[query]).abs().sum().item())
        box_weights.append((1 / (1 + math.exp(-b.max()))) ** focus)
    return np.average(scores, weights=score_weights) + 0.5 * np.average(boxes, weights=box_weights)


@pytest.mark.parametrize("focus", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("code", [(10,), (4, 3)])
def test_is_the_weighted_mean_over_queries(temperature: float, focus: float, code: tuple[int, ...]) -> None:
    logits = [2 * normal(2, 1, 5, 3, seed=seed) for seed in (1, 2)]
    codes = [normal(2, 1, 5, *code, seed=seed) for seed in (3, 4)]
    value = DetectionResponse(temperature, focus, codes_weight=0.5)(*logits, *codes)
    assert value.item() == pytest.approx(reference(*logits, *codes, temperature, focus), rel=1e-4)


def scene(background: int, miss: float = 0.0, hallucination: float = -3.5) -> list[Tensor]:
    """One object at score 0.73, the rest background at 0.03, which differs a little between the nets."""
    teacher = torch.full((1, 1, 1 + background, 4), -3.5)
    teacher[0, 0, 0, 1] = 1.0
    student = teacher + 0.1 * normal(*teacher.shape)
    student[0, 0, 0, 1] = 1.0 - miss
    student[0, 0, -1, 2] = hallucination
    return [student, teacher, torch.zeros(1, 1, 1 + background, 10), torch.zeros(1, 1, 1 + background, 10)]


def test_background_does_not_outweigh_an_object() -> None:
    """A missed object among 600 queries costs a good part of what it costs among 10; unweighted, a sixtieth."""
    many, few = (DetectionResponse()(*scene(count, miss=4)).item() for count in (600, 10))
    assert many > few / 3
    flat_many, flat_few = (DetectionResponse(focus=0)(*scene(count, miss=4)).item() for count in (600, 10))
    assert flat_many < flat_few / 20


def test_false_positives_of_the_student_cost_too() -> None:
    honest, wrong = (DetectionResponse()(*scene(100, hallucination=logit)).item() for logit in (-3.5, 2.0))
    assert wrong > 10 * honest


def test_boxes_of_background_do_not_count() -> None:
    _, teacher, codes, teacher_codes = scene(20)
    codes[0, 0, 1:] = 5.0
    on_background = DetectionResponse()(teacher, teacher, codes, teacher_codes).item()
    codes = torch.zeros_like(codes)
    codes[0, 0, 0] = 5.0
    on_object = DetectionResponse()(teacher, teacher, codes, teacher_codes).item()
    assert on_object > 20 * on_background


def test_repeated_queries_change_nothing() -> None:
    inputs = [normal(2, 3, 6, n, seed=n) for n in (4, 4, 10, 10)]
    loss = DetectionResponse(2.0)
    assert torch.allclose(loss(*[t.repeat(1, 1, 5, 1) for t in inputs]), loss(*inputs), rtol=1e-5)


def test_code_weights_are_those_of_the_flat_code() -> None:
    logits, teacher = normal(1, 1, 4, 2), torch.zeros(1, 1, 4, 2, 2)
    student = teacher.clone()
    student[..., 1, 0] = 1.0
    value = DetectionResponse(code_weights=[1, 1, 6, 1])(logits, logits, student, teacher)
    assert value.item() == pytest.approx(6)


def test_extreme_logits_stay_finite_and_the_teacher_does_not_learn() -> None:
    student, teacher = torch.tensor([[[[80.0, -80]]]], requires_grad=True), torch.tensor([[[[-80.0, 80]]]])
    teacher.requires_grad_()
    codes = torch.zeros(1, 1, 1, 10, requires_grad=True)
    value = DetectionResponse()(student, teacher, codes, torch.ones(1, 1, 1, 10))
    value.backward()
    assert value.item() == pytest.approx(160 + 10) and teacher.grad is None
    assert student.grad.isfinite().all() and (codes.grad < 0).all()


def test_no_gradient_comes_through_the_weights() -> None:
    """The student's logit is pulled towards the teacher's, never towards a score that weighs less."""
    student, teacher = torch.tensor([[[[0.5], [-4.0]]]], requires_grad=True), torch.tensor([[[[2.0], [-4.0]]]])
    codes = torch.zeros(1, 1, 2, 10)
    DetectionResponse()(student, teacher, codes, codes).backward()
    assert student.grad[0, 0, 0].item() < 0 and student.grad[0, 0, 1].item() == 0


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(1, 2, 5, 3), (1, 2, 4, 3), (1, 2, 5, 10), (1, 2, 5, 10)], "logits: student"),
        ([(1, 2, 5, 3), (1, 2, 5, 3), (1, 2, 5, 10), (1, 2, 5, 8)], "codes: student"),
        ([(1, 2, 5, 3), (1, 2, 5, 3), (1, 2, 4, 10), (1, 2, 4, 10)], "do not fit"),
        ([(1, 2, 5, 3), (1, 2, 5, 3), (1, 2, 5), (1, 2, 5)], "do not fit"),
        ([(1, 2, 5, 3), (1, 2, 5, 3), (1, 2, 5, 8), (1, 2, 5, 8)], "code_weights has 10 numbers, a code 8"),
    ],
)
def test_what_does_not_fit_is_named(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectionResponse(code_weights=[1.0] * 10)(*[normal(*shape) for shape in shapes])
    with pytest.raises(ValueError, match="temperature"):
        DetectionResponse(temperature=-1)


def test_small_weights_are_a_mean_all_the_same() -> None:
    assert _weighted_mean(torch.tensor([2.0, 6.0]), torch.tensor([0.1, 0.3])).item() == pytest.approx(5.0)
    assert _weighted_mean(torch.tensor([2.0]), torch.tensor([0.0])).item() == 0.0
