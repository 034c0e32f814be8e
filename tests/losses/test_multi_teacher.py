"""PHI-S and averaging over teachers, in float64."""

import numpy as np
import pytest
import torch

from kd_runner.losses.functional.hadamard import hadamard
from kd_runner.losses.functional.phi_s import PhiS
from kd_runner.losses.multi_teacher import MultiTeacher
from tests.losses.references import assert_same, built, features


@pytest.mark.parametrize("size", [1, 2, 4, 12, 20, 24, 28, 36, 40, 48, 80, 96, 160, 640, 768])
def test_hadamard_is_orthogonal_with_entries_of_one_magnitude(size: int) -> None:
    matrix = hadamard(size)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64))
    torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, size**-0.5))


@pytest.mark.parametrize("size", [3, 6, 10, 92])
def test_a_size_without_a_hadamard_matrix_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"no Hadamard matrix of size {size} is known here: rotate=false"):
        hadamard(size)


def test_phi_s_gives_all_channels_variance_1_and_keeps_distances_in_proportion() -> None:
    """Channels of unlike scale, correlated: after it the covariance has a diagonal of ones."""
    x = features(200, 4) @ features(4, 4, seed=1) * torch.tensor([100.0, 1.0, 10.0, 0.1]).double() + 5
    normalize = PhiS(4, steps=1)
    y = normalize(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(4).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(y.T.cov().diagonal(), torch.ones(4).double())
    ratio = torch.cdist(x[:9], x[9:18]) / torch.cdist(y[:9], y[9:18])
    torch.testing.assert_close(ratio, torch.full_like(ratio, x.T.cov().diagonal().mean().sqrt().item()))
    scaled = PhiS(4, steps=1, rotate=False)(x)
    torch.testing.assert_close(scaled, (x - x.mean(0)) / x.T.cov().diagonal().mean().sqrt())


def test_statistics_are_those_of_the_first_batches_together() -> None:
    x = features(90, 4, seed=1)
    normalize = PhiS(4, steps=3)
    for part in x.split([20, 30, 40]):
        normalize(part)
    torch.testing.assert_close(normalize.mean, x.mean(0))
    torch.testing.assert_close(normalize.scatter / 89, x.T.cov())
    fixed = normalize(x)
    normalize(100 * x)
    assert torch.equal(normalize(x), fixed)


def test_each_teacher_counts_the_same_whatever_its_scale() -> None:
    student, first, second = (features(50, n, seed=n) for n in (3, 4, 8))
    loss = built(MultiTeacher(steps=1), student, [first, second])
    loud = built(MultiTeacher(steps=1), student, [first, 1e4 * second + 50])
    torch.testing.assert_close(loss(student, [first, second]), loud(student, [first, 1e4 * second + 50]))
    for projection in loss.projections:
        torch.nn.init.zeros_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    assert loss(student, [first, second]).item() == pytest.approx(49 / 50)  # the mean alone: 1, unbiased


def test_value_and_gradient_are_those_of_the_formula() -> None:
    student, teachers = features(2, 3, 4, 5, seed=1), [features(2, 4, 4, 5, seed=2), features(2, 8, 4, 5, seed=3)]
    loss = built(MultiTeacher(steps=1), student, teachers)
    loss(student, teachers)

    def reference(student: torch.Tensor) -> torch.Tensor:
        values = []
        for projection, teacher in zip(loss.projections, teachers):
            rows = torch.stack([teacher[n, :, i, j] for n in range(2) for i in range(4) for j in range(5)])
            covariance = torch.from_numpy(np.cov(rows.T.numpy()))
            e, u = torch.linalg.eigh(covariance)
            goal = (rows - rows.mean(0)) @ (hadamard(rows.shape[1]) @ u.T).T / e.mean().sqrt()
            own = torch.stack([
                projection.weight[:, :, 0, 0] @ student[n, :, i, j] + projection.bias
                for n in range(2) for i in range(4) for j in range(5)
            ])  # fmt: skip
            values.append(((own - goal) ** 2).mean())
        return sum(values) / len(values)

    assert_same(lambda s: loss(s, teachers), reference, student, rtol=1e-6)
