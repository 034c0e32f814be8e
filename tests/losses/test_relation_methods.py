"""SP, RKD and PKT against their authors' formulas in float64, pair by pair and triple by triple."""

import math

import pytest
import torch
from torch import Tensor

from kd_runner.losses.pkt import PKT
from kd_runner.losses.rkd import RKD
from kd_runner.losses.similarity_preserving import SimilarityPreserving
from tests.losses.references import assert_same, features, leaf

B = 5


def embeddings() -> tuple[Tensor, Tensor]:
    return features(B, 3, seed=1), features(B, 7, seed=2)


def norm(x: Tensor) -> Tensor:
    return (x * x).sum().sqrt()


def test_similarity_preserving_divides_rows_by_their_euclidean_norm() -> None:
    """torchdistill's rows are divided by the sum of magnitudes, which is not the paper's."""

    def matrix(x: Tensor) -> list[list[Tensor]]:
        rows = [[(x[i] * x[j]).sum() for j in range(B)] for i in range(B)]
        return [[v / sum(w * w for w in row).sqrt() for v in row] for row in rows]

    def reference(student: Tensor, teacher: Tensor) -> Tensor:
        one, two = matrix(student), matrix(teacher)
        return sum((a - b) ** 2 for r, s in zip(one, two) for a, b in zip(r, s)) / B**2

    assert_same(SimilarityPreserving(), reference, *embeddings())
    student, teacher = features(B, 3, 2, 4, seed=1), features(B, 2, 3, 3, seed=2)  # nets of unlike sizes
    assert_same(SimilarityPreserving(), lambda s, t: reference(s.flatten(1), t.flatten(1)), student, teacher)


def smooth_l1(x: Tensor) -> Tensor:
    return x * x / 2 if x.abs() < 1 else x.abs() - 0.5


def distances(x: Tensor) -> list[list[Tensor]]:
    d = [[norm(x[i] - x[j]) if i != j else x.new_zeros(()) for j in range(B)] for i in range(B)]
    mean = sum(v for row in d for v in row) / (B * (B - 1))
    return [[v / mean for v in row] for row in d]


def angles(x: Tensor) -> list[Tensor]:
    values = []
    for j in range(B):
        for i in range(B):
            for k in range(B):
                if j in (i, k):
                    values.append(x.new_zeros(()))
                else:
                    a, b = x[i] - x[j], x[k] - x[j]
                    values.append((a * b).sum() / (norm(a) * norm(b)))
    return values


def rkd(student: Tensor, teacher: Tensor) -> Tensor:
    """Means over all B^2 pairs and B^3 triples, the diagonal among them."""
    distance = sum(smooth_l1(a - b) for r, s in zip(distances(student), distances(teacher)) for a, b in zip(r, s))
    angle = sum(smooth_l1(a - b) for a, b in zip(angles(student), angles(teacher)))
    return 25 * distance / B**2 + 50 * angle / B**3


def test_rkd_is_the_authors_formula() -> None:
    student, teacher = embeddings()
    assert_same(RKD(), rkd, student, teacher)
    assert_same(RKD(), rkd, student + 1e3, teacher, rtol=1e-6)  # far from the origin: no loss of digits


def test_rkd_of_maps_takes_their_means() -> None:
    student, teacher = features(B, 3, 4, 2, seed=1), features(B, 7, 4, 2, seed=2)
    torch.testing.assert_close(RKD()(student, teacher), rkd(student.mean((2, 3)), teacher.mean((2, 3))))


def test_rkd_of_samples_that_coincide_is_finite() -> None:
    student = leaf(features(3, 4)[[0, 1, 1, 2]])
    value = RKD()(student, features(4, 6))
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    same = leaf(torch.ones(3, 4, dtype=torch.float64))
    RKD()(same, features(3, 4)).backward()
    assert (same.grad == 0).all()


def test_rkd_of_a_turned_and_scaled_copy_is_zero() -> None:
    student = features(B, 4)
    turned = torch.linalg.qr(features(4, 4, seed=5))[0]
    assert RKD()(3 * student @ turned + 1, student).item() == pytest.approx(0.0, abs=1e-12)


def test_pkt_averages_over_all_pairs() -> None:
    """Mean over B * B, where a KL divergence would sum over a row."""

    def likely(x: Tensor) -> list[list[Tensor]]:
        unit = [v / (norm(v) + 1e-7) for v in x]
        rows = [[((a * b).sum() + 1) / 2 for b in unit] for a in unit]
        return [[v / sum(row) for v in row] for row in rows]

    def reference(student: Tensor, teacher: Tensor) -> Tensor:
        total = student.new_zeros(())
        for q_row, p_row in zip(likely(student), likely(teacher)):
            for q, p in zip(q_row, p_row):
                total = total + p * ((p + 1e-7) / (q + 1e-7)).log()
        return total / B**2

    assert_same(PKT(), reference, *embeddings())


def test_pkt_by_hand() -> None:
    """Two orthogonal vectors give P = (2/3, 1/3; 1/3, 2/3); two equal ones (1/2, 1/2; 1/2, 1/2)."""
    student, teacher = torch.ones(2, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    expected = (2 * 2 / 3 * math.log(4 / 3) + 2 / 3 * math.log(2 / 3)) / 4
    assert PKT()(student, teacher).item() == pytest.approx(expected, rel=1e-5)
