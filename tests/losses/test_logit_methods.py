"""LSKD, DKD and DIST against their authors' formulas in float64, sample by sample."""

import math

import pytest
import torch
from torch import Tensor

from kd_runner.losses.dist import DIST
from kd_runner.losses.dkd import DKD
from kd_runner.losses.lskd import StandardizedKL
from tests.losses.references import assert_same, features, leaf


def softmax(values: list[Tensor], temperature: float) -> list[Tensor]:
    exps = [(v / temperature).exp() for v in values]
    return [e / sum(exps) for e in exps]


def kl(teacher: list[Tensor], student: list[Tensor]) -> Tensor:
    return sum(p * (p / q).log() for p, q in zip(teacher, student))


def pixels(maps: Tensor) -> list[list[Tensor]]:
    return [[vector[c] for c in range(len(vector))] for vector in maps.movedim(1, -1).reshape(-1, maps.shape[1])]


def lskd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    def standardized(vector: list[Tensor]) -> list[Tensor]:
        mean = sum(vector) / len(vector)
        deviation = (sum((v - mean) ** 2 for v in vector) / (len(vector) - 1)).sqrt()
        return [(v - mean) / (1e-7 + deviation) for v in vector]

    values = [
        kl(softmax(standardized(t), temperature), softmax(standardized(s), temperature))
        for s, t in zip(pixels(student), pixels(teacher))
    ]
    return temperature**2 * sum(values) / len(values)


@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 3, 2)])
def test_lskd_standardizes_the_classes_of_each_pixel(shape: tuple[int, ...]) -> None:
    student, teacher = features(*shape, seed=1), features(*shape, seed=2)
    assert_same(StandardizedKL(2.0), lambda s, t: lskd(s, t, 2.0), student, teacher)


def test_lskd_is_blind_to_scale_and_offset() -> None:
    student = features(4, 6)
    torch.testing.assert_close(StandardizedKL()(3 * student + 5, student), torch.zeros((), dtype=torch.float64))


def dkd(student: Tensor, teacher: Tensor, target: Tensor, alpha: float, beta: float, temperature: float) -> Tensor:
    values = []
    for s, t, y in zip(pixels(student), pixels(teacher), target.flatten().tolist()):
        if y == 255:
            continue
        q, p = softmax(s, temperature), softmax(t, temperature)
        tckd = kl([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        others_s, others_t = ([v for c, v in enumerate(x) if c != y] for x in (s, t))
        nckd = kl(softmax(others_t, temperature), softmax(others_s, temperature))
        values.append(alpha * tckd + beta * nckd)
    return temperature**2 * sum(values) / len(values)


@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 3, 2)])
@pytest.mark.parametrize(("alpha", "beta", "temperature"), [(1.0, 8.0, 4.0), (2.0, 0.5, 1.0)])
def test_dkd_is_the_authors_formula(shape: tuple[int, ...], alpha: float, beta: float, temperature: float) -> None:
    student, teacher = features(*shape, seed=1), features(*shape, seed=2)
    target = torch.randint(5, shape[:1] + shape[2:], generator=torch.Generator().manual_seed(0))
    target.view(-1)[0] = 255
    loss = DKD(alpha, beta, temperature)
    assert_same(loss, lambda s, t, y: dkd(s, t, y, alpha, beta, temperature), student, teacher, target)


def test_dkd_with_alpha_1_and_beta_1_minus_p_is_the_kl_divergence() -> None:
    """The paper's equation 5, of one sample."""
    student, teacher, target = features(1, 5, seed=1), features(1, 5, seed=2), torch.tensor([3])
    others = 1 - teacher.softmax(1)[0, 3].item()
    full = kl(softmax(pixels(teacher)[0], 1.0), softmax(pixels(student)[0], 1.0))
    torch.testing.assert_close(DKD(1.0, others, 1.0)(student, teacher, target), full)


def test_dkd_unlabeled_pixels_are_ignored_or_take_the_teachers_class() -> None:
    student, teacher = leaf(features(3, 5, seed=1)), features(3, 5, seed=2)
    target = torch.tensor([1, 255, 2])
    DKD()(student, teacher, target).backward()
    assert (student.grad[1] == 0).all()
    filled = torch.where(target == 255, teacher.argmax(1), target)
    torch.testing.assert_close(DKD(teacher_labels=True)(student, teacher, target), DKD()(student, teacher, filled))


def test_dkd_of_huge_logits_is_finite() -> None:
    """Differences above 1000, which the authors' code subtracts from the label's logit."""
    student, teacher = leaf(5e3 * features(4, 5, seed=1)), 5e3 * features(4, 5, seed=2)
    value = DKD(temperature=1.0)(student, teacher, torch.tensor([0, 1, 2, 3]))
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


def correlation(a: list[Tensor], b: list[Tensor]) -> Tensor:
    a, b = ([v - sum(x) / len(x) for v in x] for x in (a, b))
    norms = (sum(x * x for x in v).sqrt() for v in (a, b))
    return sum(x * y for x, y in zip(a, b)) / math.prod(norms)


def dist(student: Tensor, teacher: Tensor, beta: float, gamma: float, temperature: float) -> Tensor:
    q, p = ([softmax(vector, temperature) for vector in pixels(x)] for x in (student, teacher))
    between = [1 - correlation(a, b) for a, b in zip(q, p)]
    within = [1 - correlation([row[c] for row in q], [row[c] for row in p]) for c in range(len(q[0]))]
    return temperature**2 * (beta * sum(between) / len(between) + gamma * sum(within) / len(within))


@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 3, 2)])
def test_dist_correlates_all_pixels_of_the_batch(shape: tuple[int, ...]) -> None:
    student, teacher = features(*shape, seed=1), features(*shape, seed=2)
    assert_same(DIST(2.0, 0.5, 3.0), lambda s, t: dist(s, t, 2.0, 0.5, 3.0), student, teacher)


def test_dist_of_a_copy_is_zero_and_of_the_opposite_ranking_is_2_between_classes() -> None:
    logits = torch.tensor([[math.log(0.2), math.log(0.3), math.log(0.5)]], dtype=torch.float64)
    assert DIST(gamma=0.0)(logits, logits).item() == pytest.approx(0.0, abs=1e-6)
    mirrored = (2 / 3 - logits.exp()).log()  # 1/3 + (1/3 - p): correlation -1
    assert DIST(gamma=0.0)(mirrored, logits).item() == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("loss", [StandardizedKL(resize=True), DIST(resize=True), DKD(resize=True)])
def test_logits_before_upsampling_with_labels_of_the_images_size(loss) -> None:
    """Pixels of the image stand in blocks, so that the nearest is every one of its block."""
    student, teacher = features(2, 5, 3, 4, seed=1), features(2, 5, 6, 8, seed=2)
    small = teacher.reshape(2, 5, 3, 2, 4, 2).mean((3, 5))
    mask, target = features(2, 3, 4, seed=3) > -0.5, torch.randint(5, (2, 3, 4))
    blocks = [x.repeat_interleave(4, 1).repeat_interleave(4, 2) for x in (mask, target)]
    label = isinstance(loss, DKD)
    whole = loss(student, teacher, *([blocks[1]] if label else []), mask=blocks[0])
    torch.testing.assert_close(whole, loss(student, small, *([target] if label else []), mask=mask))
