"""Whatever moves the points moves the boxes with them."""

import math

import pytest
import torch

from kd_runner.data.nuscenes.augment import bevfusion, flip, move
from kd_runner.data.nuscenes.frame import LidarFrame, Objects
from kd_runner.geometry.boxes3d import inside


def frame(seed: int = 0) -> LidarFrame:
    """Boxes, each with ten points of its own, and a hundred points anywhere."""
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(6, 9, generator=g) * torch.tensor([40, 40, 2, 4, 2, 2, 6.2, 8, 8]) + torch.tensor([-20, -20, -2,
        1, 1, 1, -3.1, -4, -4])  # fmt: skip
    own = (torch.rand(6, 10, 3, generator=g) - 0.5) * boxes[:, None, 3:6]
    c, v = boxes[:, 6, None].cos(), boxes[:, 6, None].sin()
    own = torch.stack([c * own[..., 0] - v * own[..., 1], v * own[..., 0] + c * own[..., 1], own[..., 2]], -1)
    places = torch.cat([(own + boxes[:, None, :3]).flatten(0, 1), torch.randn(100, 3, generator=g) * 15])
    points = torch.cat([places, torch.rand(160, 2, generator=g)], 1)
    return LidarFrame(points, Objects(boxes, *(torch.arange(6) for _ in range(3))))


@pytest.mark.parametrize("seed", range(4))
def test_points_stay_in_their_boxes(seed: int) -> None:
    """Also a moment later: points that travel with their box are in the box that moved."""
    before = frame(seed)
    torch.manual_seed(seed)
    after = bevfusion()(before)
    for seconds in (0.0, 0.7):
        held = []
        for one in (before, after):
            boxes, points = one.objects.boxes.clone(), one.points[:60].clone()
            boxes[:, :2] += seconds * boxes[:, 7:9]
            points[:, :2] += seconds * one.objects.boxes[:, 7:9].repeat_interleave(10, 0)
            shrunk = boxes.clone()
            shrunk[:, 3:6] *= 1 + 1e-4
            held.append(inside(points, shrunk))
        assert torch.equal(held[0], held[1])
        assert all(held[0][k, 10 * k : 10 * k + 10].all() for k in range(6))
    assert torch.equal(before.points[:, 3:], after.points[:, 3:])
    assert (after.objects.boxes[:, 6].abs() <= math.pi + 1e-5).all()


def test_quarter_turn_by_hand() -> None:
    one = Objects(torch.tensor([[2.0, 1, 0, 4, 2, 1, 0.5, 3, 0]]), *(torch.zeros(1).long() for _ in range(3)))
    done = move(LidarFrame(torch.tensor([[1.0, 0, 0, 9, 8]]), one), angle=math.pi / 2, factor=2.0, shift=(0, 0, 1))
    assert torch.allclose(done.points, torch.tensor([[0.0, 2, 1, 9, 8]]), atol=1e-6)
    expected = torch.tensor([[-2.0, 4, 1, 8, 4, 2, 0.5 + math.pi / 2, 0, 6]])
    assert torch.allclose(done.objects.boxes, expected, atol=1e-6)


def test_flips_by_hand_and_twice() -> None:
    before = frame()
    done = flip(before, x=True, y=False)
    assert torch.allclose(done.points[:, 0], -before.points[:, 0])
    turned = torch.stack([-before.objects.boxes[:, 6].cos(), before.objects.boxes[:, 6].sin()])
    assert torch.allclose(torch.stack([done.objects.boxes[:, 6].cos(), done.objects.boxes[:, 6].sin()]), turned,
                          atol=1e-5)  # fmt: skip
    again = flip(done, x=True, y=False)
    assert torch.allclose(again.objects.boxes, before.objects.boxes, atol=1e-5)
    both = flip(before, x=True, y=True)
    half = move(before, angle=math.pi, factor=1.0, shift=(0, 0, 0))
    assert torch.allclose(both.points, half.points, atol=1e-4)


def test_draws_follow_the_seed_and_unknown_velocities_stay_unknown() -> None:
    before = frame()
    before.objects.boxes[2, 7:] = float("nan")
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(bevfusion()(before))
    assert torch.equal(results[0].points, results[1].points)
    assert not torch.equal(results[0].points, results[2].points)
    assert results[0].objects.boxes.isnan().any(1).tolist() == [False, False, True, False, False, False]
