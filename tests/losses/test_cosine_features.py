"""CosineFeatures against a float64 reference, location by location."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_runner.losses.cosine_features import CosineFeatures


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(student: list[Tensor], teacher: list[Tensor]) -> CosineFeatures:
    torch.manual_seed(0)
    loss = CosineFeatures()
    loss.build(student, teacher)
    return loss


def distances(loss: CosineFeatures, level: int, student: Tensor, teacher: Tensor) -> np.ndarray:
    """1 - cosine along the channels, (B, H, W)."""
    weight = loss.projections[level].weight.detach().double().numpy()[:, :, 0, 0]
    student_map = np.einsum("oc,bchw->bohw", weight, student.detach().double().numpy())
    teacher_map = teacher.double().numpy()
    return 1 - (student_map * teacher_map).sum(1) / np.sqrt((student_map**2).sum(1) * (teacher_map**2).sum(1))


def test_is_the_mean_over_levels_of_the_mean_over_locations() -> None:
    """Levels of unlike size weigh the same."""
    student, teacher = [maps(2, 3, 8, 8, seed=1), maps(2, 6, 2, 2, seed=2)], [maps(2, 5, 8, 8), maps(2, 4, 2, 2)]
    loss = built(student, teacher)
    expected = np.mean([distances(loss, i, student[i], teacher[i]).mean() for i in range(2)])
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_only_valid_locations_count() -> None:
    student, teacher = [maps(2, 3, 4, 4, seed=1).requires_grad_()], [maps(2, 5, 4, 4, seed=2)]
    mask = maps(2, 4, 4, seed=3) > 0
    loss = built(student, teacher)
    value = loss(student, teacher, mask)
    value.backward()
    assert value.item() == pytest.approx(distances(loss, 0, student[0], teacher[0])[mask.numpy()].mean(), rel=1e-5)
    gradient = student[0].grad.movedim(1, -1)
    assert (gradient[~mask] == 0).all() and (gradient[mask] != 0).any(-1).all()


def test_all_masked_is_zero_with_zero_gradient() -> None:
    student, teacher = [maps(2, 3, 4, 4, seed=1).requires_grad_()], [maps(2, 5, 4, 4, seed=2)]
    value = built(student, teacher)(student, teacher, torch.zeros(2, 4, 4, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert torch.equal(student[0].grad, torch.zeros_like(student[0]))


def test_a_larger_teacher_map_is_brought_to_the_students_grid() -> None:
    """Bilinear halving without aligned corners is the mean of each 2 x 2 block."""
    student, teacher = [maps(1, 3, 4, 4, seed=1)], [maps(1, 5, 8, 8, seed=2)]
    loss = built(student, teacher)
    blocks = teacher[0].reshape(1, 5, 4, 2, 4, 2).mean((3, 5))
    assert loss(student, teacher).item() == pytest.approx(distances(loss, 0, student[0], blocks).mean(), rel=1e-5)


@pytest.mark.parametrize("teacher_size", [(8, 4), (4, 16), (8, 16)])
def test_the_teachers_map_is_resized_to_a_grid_that_is_not_square(teacher_size: tuple[int, int]) -> None:
    """The student's grid of 4 x 8 counts: blocks of the teacher's columns or rows are averaged or repeated."""
    student, teacher = [maps(1, 3, 4, 8, seed=1)], [maps(1, 5, *teacher_size, seed=2)]
    loss = built(student, teacher)
    expected = torch.nn.functional.interpolate(teacher[0], (4, 8), mode="bilinear", align_corners=False)
    if teacher_size == (8, 16):
        torch.testing.assert_close(expected, teacher[0].reshape(1, 5, 4, 2, 8, 2).mean((3, 5)))
    assert loss(student, teacher).item() == pytest.approx(distances(loss, 0, student[0], expected).mean(), rel=1e-5)


def test_a_smaller_teacher_map_and_a_mask_of_image_size() -> None:
    """A constant map stays itself when enlarged; a location counts where its pixel of the mask does."""
    student, teacher = [maps(1, 3, 4, 4, seed=1)], [maps(1, 5, 1, 1, seed=2)]
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[:, :8, :4] = True
    loss = built(student, teacher)
    expected = distances(loss, 0, student[0], teacher[0].expand(1, 5, 4, 4))[:, :2, :1].mean()
    assert loss(student, teacher, mask).item() == pytest.approx(expected, rel=1e-5)


def test_projections_are_sized_from_the_taps_on_the_students_side() -> None:
    student, teacher = [maps(1, 3, 4, 4), maps(1, 6, 2, 2)], [maps(1, 5, 4, 4), maps(1, 7, 2, 2)]
    loss = built(student, teacher)
    assert [tuple(p.weight.shape) for p in loss.projections] == [(5, 3, 1, 1), (7, 6, 1, 1)]
    assert sum(p.numel() for p in loss.parameters()) == 5 * 3 + 7 * 6  # no bias


def test_student_and_projections_learn_the_teacher_does_not() -> None:
    student, teacher = [maps(1, 3, 4, 4).requires_grad_()], [maps(1, 5, 4, 4, seed=2).requires_grad_()]
    loss = built(student, teacher)
    loss(student, teacher).backward()
    assert teacher[0].grad is None
    assert student[0].grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


@pytest.mark.parametrize(("sign", "value"), [(1, 0.0), (-1, 2.0)])
def test_ends_of_the_range(sign: int, value: float) -> None:
    """0 where the projected student points the teacher's way, whatever its length; 2 where it points away."""
    student = [maps(1, 3, 4, 4)]
    loss = built(student, [maps(1, 5, 4, 4)])
    teacher = [7.0 * sign * loss.projections[0](student[0]).detach()]
    assert loss(student, teacher).item() == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ([(1, 3, 4, 4)], [(1, 5, 4, 4)] * 2, "1 student levels, 2 teacher levels"),
        ([(1, 3)], [(1, 5, 4, 4)], r"maps .* needed, not \(1, 3\) and \(1, 5, 4, 4\)"),
    ],
)
def test_levels_that_do_not_fit_are_named(student: list, teacher: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CosineFeatures().build([maps(*s) for s in student], [maps(*s) for s in teacher])


def test_token_grids_have_their_channels_last() -> None:
    student, teacher = [maps(2, 3, 4, 5, seed=1)], [maps(2, 6, 4, 5, seed=2)]
    mask = maps(2, 4, 5, seed=3) > 0
    loss = built(student, teacher)
    torch.manual_seed(0)
    grids = CosineFeatures(channel_dim=-1)
    student_grid, teacher_grid = ([m.movedim(1, -1) for m in side] for side in (student, teacher))
    grids.build(student_grid, teacher_grid)
    torch.testing.assert_close(grids(student_grid, teacher_grid, mask), loss(student, teacher, mask))


def test_another_channel_dim_is_refused() -> None:
    with pytest.raises(ValueError, match="channel_dim must be 1"):
        CosineFeatures(channel_dim=2)
