"""FeatureMSE against closed forms and a float64 reference."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_runner.losses.feature_mse import FeatureMSE


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_plain_is_the_mean_of_the_levels_means() -> None:
    """Levels of unlike size weigh the same."""
    student, teacher = [maps(2, 3, 8, 8, seed=1), maps(2, 6, 2, 2, seed=2)], [maps(2, 3, 8, 8), maps(2, 6, 2, 2)]
    expected = np.mean([((a - b).double() ** 2).mean().item() for a, b in zip(student, teacher)])
    assert FeatureMSE(normalize=False)(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_normalized_is_in_variances_of_the_teachers_channel() -> None:
    student, teacher = maps(2, 5, 4, 4, seed=1), maps(2, 5, 4, 4) * torch.tensor([1.0, 2, 3, 4, 50]).view(5, 1, 1)
    student_map, teacher_map = (m.double().numpy().transpose(1, 0, 2, 3).reshape(5, -1) for m in (student, teacher))
    expected = (((student_map - teacher_map) ** 2).mean(1) / teacher_map.var(1)).mean()
    assert FeatureMSE()([student], [teacher]).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_knowing_the_channels_means_alone_costs_one(scale: float) -> None:
    """Whatever the magnitude of the net or of single channels, so that weights keep their meaning."""
    teacher = scale * maps(2, 6, 4, 4) + 7
    teacher[:, 2] *= 400
    mean = teacher.mean((0, 2, 3), keepdim=True).expand_as(teacher)
    assert FeatureMSE()([mean], [teacher]).item() == pytest.approx(1, rel=1e-3)
    assert FeatureMSE()([teacher], [teacher]).item() == 0


def test_an_outlier_channel_does_not_hide_the_others() -> None:
    """The gradient of the quiet channels is what it is without the outlier's factor of 500."""
    gradients = []
    for factor in (1.0, 500.0):
        scale = torch.ones(4, 1, 1).index_fill(0, torch.tensor(3), factor)
        student, teacher = (maps(1, 4, 4, 4, seed=1) * scale).requires_grad_(), maps(1, 4, 4, 4) * scale
        FeatureMSE()([student], [teacher]).backward()
        gradients.append(student.grad[:, :3])
    assert torch.allclose(*gradients, rtol=1e-4)


def test_a_channel_that_never_changes_stays_bounded() -> None:
    teacher = maps(2, 5, 4, 4)
    teacher[:, 1] = 2.0
    student = teacher.clone()
    student[:, 1] += 0.01
    assert FeatureMSE()([student], [teacher]).item() < 0.1


def test_tokens_and_grids_are_the_map_turned() -> None:
    student, teacher = maps(2, 5, 4, 3, seed=1), maps(2, 5, 4, 3)
    expected = FeatureMSE()([student], [teacher])
    grids = [m.movedim(1, -1) for m in (student, teacher)]
    tokens = [m.flatten(1, 2) for m in grids]
    for student_map, teacher_map in (grids, tokens):
        assert torch.allclose(FeatureMSE(channel_dim=-1)([student_map], [teacher_map]), expected)


@pytest.mark.parametrize("normalize", [True, False])
def test_masked_locations_count_for_nothing(normalize: bool) -> None:
    """Neither in the error nor in the variance: the value is that of the valid tokens alone."""
    student, teacher = maps(2, 6, 5, seed=1).requires_grad_(), maps(2, 6, 5)
    mask = torch.ones(2, 6, dtype=torch.bool).index_fill(1, torch.tensor([4, 5]), False)
    loss = FeatureMSE(normalize, channel_dim=-1)
    value = loss([student], [teacher.masked_fill(~mask[..., None], 1e4)], mask)
    value.backward()
    assert torch.allclose(value, loss([student[:, :4]], [teacher[:, :4]]))
    assert (student.grad[~mask] == 0).all() and (student.grad[mask] != 0).all()


def test_all_masked_is_zero_with_zero_gradient() -> None:
    student = maps(1, 3, 2, 2, seed=1).requires_grad_()
    value = FeatureMSE()([student], [maps(1, 3, 2, 2)], torch.zeros(1, 2, 2, dtype=torch.bool))
    value.backward()
    assert value.item() == 0 and (student.grad == 0).all()


def test_the_teacher_does_not_learn() -> None:
    student, teacher = maps(1, 3, 4, 4, seed=1).requires_grad_(), maps(1, 3, 4, 4).requires_grad_()
    FeatureMSE()([student], [teacher]).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ([(1, 3, 4, 4)], [(1, 3, 4, 4)] * 2, "1 student levels, 2 teacher levels"),
        ([(1, 3, 4, 4)] * 2, [(1, 3, 4, 4), (1, 5, 4, 4)], r"level 1: .*CosineFeatures"),
    ],
)
def test_levels_that_do_not_fit_are_named(student: list, teacher: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureMSE()([maps(*s) for s in student], [maps(*s) for s in teacher])


def test_an_unknown_channel_axis() -> None:
    with pytest.raises(ValueError, match="channel_dim"):
        FeatureMSE(channel_dim=2)
