"""CIRKD's two losses against the authors' formulas in float64, pixel by pixel; queues as rings."""

import pytest
import torch
from torch import Tensor

from kd_runner.losses.cirkd import CrossImageRelations
from kd_runner.losses.cirkd_memory import QueueRelations
from kd_runner.losses.functional.class_queues import ClassQueues
from tests.losses.references import assert_same, built, features

B, C, D, H, W = 2, 3, 4, 3, 5


def unit(x: Tensor) -> Tensor:
    return x / (x * x).sum().sqrt()


def kl(student: list[Tensor], teacher: list[Tensor], temperature: float) -> Tensor:
    q, p = (torch.stack(x) / temperature for x in (student, teacher))
    q, p = q.exp() / q.exp().sum(), p.exp() / p.exp().sum()
    return (p * (p / q).log()).sum()


def cells(x: Tensor) -> list[list[Tensor]]:
    """Unit vectors of 2 x 2 cells, those at the edge smaller, of every image."""
    return [
        [unit(image[:, i : i + 2, j : j + 2].mean((1, 2))) for i in range(0, H, 2) for j in range(0, W, 2)]
        for image in x
    ]


def test_cross_image_relations_are_the_authors_formula_without_the_square_of_t() -> None:
    def reference(student: Tensor, teacher: Tensor) -> Tensor:
        own, other = cells(student), cells(teacher)
        total = student.new_zeros(())
        for i in range(B):
            for j in range(B):
                rows = [
                    kl([(a * b).sum() for b in own[j]], [(c * d).sum() for d in other[j]], 0.5)
                    for a, c in zip(own[i], other[i])
                ]
                total = total + sum(rows) / len(rows)
        return total / B**2

    student, teacher = features(B, C, H, W, seed=1), features(B, D, H, W, seed=2)
    assert_same(CrossImageRelations(0.5), reference, student, teacher)


def test_cross_image_relations_of_a_masked_batch_are_those_of_what_is_left() -> None:
    student, teacher = features(3, C, 4, 6, seed=1), features(3, D, 4, 6, seed=2)
    mask = torch.ones(3, 4, 6, dtype=torch.bool)
    mask[:, :, 4:] = False
    mask[1] = False
    loss = CrossImageRelations()
    torch.testing.assert_close(loss(student, teacher, mask), loss(student[::2, :, :, :4], teacher[::2, :, :, :4]))


def memory(**more) -> QueueRelations:
    loss = QueueRelations(3, 12, 6, 5, 2, pixels_per_image=4, pixel_weight=0.5, region_weight=0.25, **more)
    student, teacher = features(B, C, H, W, seed=1), features(B, D, H, W, seed=2)
    return built(loss, student, teacher, torch.zeros(B, H, W, dtype=torch.int64))


def test_queue_relations_are_the_authors_formula() -> None:
    """In evaluation mode, against the vectors that a second draw of the same seed gives."""
    loss = memory(temperature=2.0).eval()
    student, teacher = features(B, C, H, W, seed=1), features(B, D, H, W, seed=2)
    target = torch.randint(3, (B, H, W), generator=torch.Generator().manual_seed(0))
    target[0, 0] = 255
    generator = torch.Generator().manual_seed(hash((0, 0, 0)) % 2**63)
    contrasts = [queue.draw(count, generator) for queue, count in zip(loss.queues, (5, 2))]
    assert [len(c) for c in contrasts] == [15, 6]
    first, norm, _, last = loss.head
    scale = 1 / (1 + norm.eps) ** 0.5

    def reference(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        total = student.new_zeros(())
        pixels = [(n, i, j) for n in range(B) for i in range(H) for j in range(W) if target[n, i, j] != 255]
        for n, i, j in pixels:
            own = unit(last.weight @ (first.weight @ student[n, :, i, j] * scale).clamp(min=0))
            other = unit(teacher[n, :, i, j])
            for contrast, weight in zip(contrasts, (0.5, 0.25)):
                logits = ([(v @ row) / 0.1 for row in contrast] for v in (own, other))
                total = total + weight * kl(*logits, 2.0)
        return 2.0**2 * total / len(pixels)

    assert_same(loss, reference, student, teacher, target)


def test_the_pixel_queue_holds_pixels_of_the_class_and_the_region_queue_their_mean() -> None:
    """The authors' code fills it with pixels of any class. Here each class has vectors of its own direction."""
    loss = memory()
    target = torch.zeros(B, H, W, dtype=torch.int64)
    target[:, :, 2:] = 2
    target[1, 0] = 255
    directions = torch.eye(D, dtype=torch.float64)
    teacher = directions[target.clamp(max=3)].movedim(-1, 1) * 7
    before = loss.queues[0].vectors.clone()
    loss(features(B, C, H, W), teacher, target)
    pixels, regions = loss.queues
    assert pixels.heads.tolist() == [8, 0, 8] and regions.heads.tolist() == [2, 0, 2]
    for label in (0, 2):
        assert torch.equal(pixels.vectors[label, :8], directions[[label] * 8])
        assert torch.equal(regions.vectors[label, :2], directions[[label] * 2])
    assert torch.equal(pixels.vectors[1], before[1]) and torch.equal(pixels.vectors[0, 8:], before[0, 8:])


def test_a_queue_is_a_ring() -> None:
    """The oldest goes first, also across the end."""
    queues = ClassQueues(2, 4, 2, torch.Generator().manual_seed(0))
    angle = torch.arange(8.0)
    vectors = torch.stack([angle.cos(), angle.sin()], dim=1)
    queues.write(vectors[:3], torch.tensor([1, 1, 1]))
    queues.write(vectors[3:6], torch.tensor([1, 1, 1]))
    torch.testing.assert_close(queues.vectors[1], vectors[[4, 5, 2, 3]])
    queues.write(vectors, torch.ones(8, dtype=torch.int64))  # more than it holds: the last ones
    assert queues.heads.tolist() == [0, 2]
    torch.testing.assert_close(queues.vectors[1, [2, 3, 0, 1]], vectors[4:])


def test_unlabeled_pixels_are_compared_with_a_mask_and_enter_no_queue() -> None:
    loss = memory()
    student, teacher = features(B, C, H, W, seed=1), features(B, D, H, W, seed=2)
    target = torch.full((B, H, W), 255)
    value = loss(student, teacher, target, mask=torch.ones(B, H, W, dtype=torch.bool))
    assert value > 0 and all(queue.heads.sum() == 0 for queue in loss.queues)
    assert loss(student, teacher, target) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_samples": 13}, "pixel_samples=13 must be above 0 and at most pixel_queue=12"),
        ({"similarity_temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_settings_that_cannot_work_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QueueRelations(**({"num_classes": 3, "pixel_queue": 12, "region_queue": 60, "pixel_samples": 9} | change))
