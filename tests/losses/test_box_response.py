"""BoxResponse against a search pair by pair."""

import pytest
import torch
from torch import Tensor

from kd_runner.losses.box_response import BoxResponse

WEIGHTS = torch.tensor([1.0] * 8 + [0.2] * 2)


def answers(queries: int, seed: int, layers: int = 2, classes: int = 3) -> dict[str, Tensor]:
    """Codes around a field of 8 x 8 cells, two samples."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(layers, 2, queries, 10, generator=generator)
    codes[..., :2] = 8 * torch.rand(layers, 2, queries, 2, generator=generator)
    return {
        "codes": codes,
        "logits": torch.randn(layers, 2, queries, classes, generator=generator),
        "labels": torch.randint(classes, (2, queries), generator=generator),
        "scores": torch.rand(2, queries, generator=generator),
    }


def value(loss: BoxResponse, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    student_side = {f"student_{name}": tensor for name, tensor in student.items() if name != "scores"}
    return loss(**student_side, **{f"teacher_{name}": tensor for name, tensor in teacher.items()})


def pairs(student: dict[str, Tensor], teacher: dict[str, Tensor], b: int, radius: float, threshold: float) -> list:
    """Mutually nearest queries of a class, by looking at all."""
    student_side, teacher_side = student["codes"][-1, b, :, :2], teacher["codes"][-1, b, :, :2]
    sure = [q for q in range(len(teacher_side)) if teacher["scores"][b, q] > threshold]

    def nearest(point: Tensor, others: Tensor, candidates: list[int]) -> int | None:
        return min(candidates, key=lambda i: float((others[i] - point).norm()), default=None)

    result = []
    for p, label in enumerate(student["labels"][b].tolist()):
        q = nearest(student_side[p], teacher_side, [q for q in sure if teacher["labels"][b, q] == label])
        back = [other for other in range(len(student_side)) if student["labels"][b, other] == label]
        if (
            q is not None
            and (student_side[p] - teacher_side[q]).norm() <= radius
            and nearest(teacher_side[q], student_side, back) == p
        ):
            result.append((p, q))
    return result


@pytest.mark.parametrize(("radius", "threshold"), [(2.0, 0.1), (0.7, 0.5), (50.0, 0.0)])
def test_is_the_weighted_mean_over_mutually_nearest_queries(radius: float, threshold: float) -> None:
    student, teacher = answers(9, seed=1), answers(12, seed=2, layers=1)  # layers and queries of each net's own
    total = weights = 0.0
    for b in range(2):
        for p, q in pairs(student, teacher, b, radius, threshold):
            boxes = ((student["codes"][-1, b, p] - teacher["codes"][-1, b, q]).abs() * WEIGHTS).sum()
            student_side, teacher_side = (
                torch.distributions.Bernoulli(logits=net["logits"][-1, b, i].double())
                for net, i in ((student, p), (teacher, q))
            )
            kl = torch.distributions.kl_divergence(teacher_side, student_side).sum()
            score = teacher["scores"][b, q]
            total, weights = total + score * (0.25 * boxes + kl), weights + score
    assert weights > 0
    result = value(BoxResponse(radius=radius, threshold=threshold), student, teacher)
    assert result.item() == pytest.approx(float(total / weights), rel=1e-5)


def test_temperature_softens_the_classes_and_leaves_the_boxes() -> None:
    student, teacher = answers(9, seed=1), answers(12, seed=2)
    warm = BoxResponse(temperature=4.0, box_weight=0.0)
    soft = [{**net, "logits": net["logits"] / 4} for net in (student, teacher)]
    expected = 16 * value(BoxResponse(box_weight=0.0), *soft)
    assert value(warm, student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)
    assert expected != value(BoxResponse(box_weight=0.0), student, teacher)
    boxes = [value(BoxResponse(temperature=t, class_weight=0.0), student, teacher) for t in (1.0, 4.0)]
    assert torch.equal(*boxes)


def test_a_teacher_is_matched_whatever_the_order_of_queries() -> None:
    teacher, order = answers(9, seed=1), torch.randperm(9, generator=torch.Generator().manual_seed(0))
    student = {name: tensor[..., order, :] for name, tensor in teacher.items() if tensor.ndim == 4}
    student["labels"] = teacher["labels"][:, order]
    assert value(BoxResponse(), student, teacher).item() == pytest.approx(0, abs=1e-6)


def test_a_second_student_near_the_same_box_is_not_drawn_to_it() -> None:
    student, teacher = answers(2, seed=1, layers=1), answers(1, seed=2, layers=1)
    teacher["scores"][:] = 1
    student["labels"][:] = teacher["labels"]
    student["codes"] = (teacher["codes"].expand(1, 2, 2, 10) + torch.tensor([[0.2], [0.5]])).requires_grad_()
    value(BoxResponse(), student, teacher).backward()
    assert (student["codes"].grad[0, :, 0] != 0).any() and (student["codes"].grad[0, :, 1] == 0).all()


def test_no_pair_is_zero_with_a_gradient_of_zero() -> None:
    student, teacher = answers(4, seed=1), answers(4, seed=2)
    student["codes"].requires_grad_()
    teacher["scores"][:] = 0
    result = value(BoxResponse(), student, teacher)
    result.backward()
    assert result == 0 and (student["codes"].grad == 0).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="class-count mismatch: student has 3, teacher 4"):
        value(BoxResponse(), answers(4, seed=1), answers(4, seed=2, classes=4))
    with pytest.raises(ValueError, match="code_weights of 2 numbers"):
        value(BoxResponse(code_weights=[1, 1]), answers(4, seed=1), answers(4, seed=2))
    with pytest.raises(ValueError, match="radius must be above 0"):
        BoxResponse(radius=0)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        BoxResponse(temperature=0)
