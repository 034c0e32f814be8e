import pytest
import torch
from torch import Tensor

from kd_runner.losses.heatmap_mse import HeatmapMSE


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("threshold", [0.0, 0.8])
@pytest.mark.parametrize("truth", [False, True])
def test_is_the_mean_over_cells_that_the_teacher_and_the_truth_weigh(threshold: float, truth: bool) -> None:
    student, teacher = logits(2, 3, 4, 5, seed=1), logits(2, 3, 4, 5, seed=2)
    foreground = logits(2, 3, 4, 5, seed=3).sigmoid() if truth else None
    total, weights = 0.0, 0.0
    for b in range(2):
        for x in range(4):
            for y in range(5):
                student_scores, teacher_scores = (
                    student[b, :, x, y].double().sigmoid(),
                    teacher[b, :, x, y].double().sigmoid(),
                )
                weight = teacher_scores.max() if teacher_scores.max() > threshold else 0.0
                weight = weight * foreground[b, :, x, y].max() if truth else weight
                total, weights = total + weight * ((student_scores - teacher_scores) ** 2).sum(), weights + weight
    value = HeatmapMSE(threshold)(student, teacher, foreground)
    assert value.item() == pytest.approx(float(total / weights), rel=1e-5)


def test_is_zero_without_foreground_and_where_both_agree() -> None:
    student = logits(1, 3, 4, 4).requires_grad_()
    value = HeatmapMSE()(student, logits(1, 3, 4, 4, seed=1), torch.zeros(1, 1, 4, 4))
    value.backward()
    assert value == 0 and (student.grad == 0).all()
    assert HeatmapMSE()(student, student) == 0


def test_a_finer_map_of_the_teacher_is_averaged_as_scores() -> None:
    student, teacher = logits(1, 2, 3, 3), logits(1, 2, 6, 6, seed=1)
    scores = teacher.sigmoid().reshape(1, 2, 3, 2, 3, 2).mean((3, 5))
    assert HeatmapMSE()(student, teacher).item() == pytest.approx(HeatmapMSE()(student, scores.logit()).item())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="class-count mismatch: student has 3, teacher 2"):
        HeatmapMSE()(logits(1, 3, 4, 4), logits(1, 2, 4, 4))
    with pytest.raises(ValueError, match="spatial mismatch"):
        HeatmapMSE()(logits(1, 3, 4, 4), logits(1, 3, 4, 4), torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="must be a score"):
        HeatmapMSE(1.5)
