"""Motions, insides and overlaps of boxes."""

import math

import torch

from kd_runner.data.nuscenes.boxes import footprints, inside, overlaps, transformed, untransformed
from kd_runner.data.nuscenes.tables import pose


def some(count: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    rows = torch.rand(count, 9, generator=g, dtype=torch.float64) * 6 - 3
    rows[:, 3:6] = rows[:, 3:6].abs() + 0.2
    return rows


def test_there_and_back_also_with_a_tilt() -> None:
    matrix = torch.from_numpy(pose([1200.0, 300.0, 2.0], [0.9, 0.05, -0.04, 0.4]))
    boxes = some(50)
    back = untransformed(transformed(boxes, matrix), matrix)
    assert torch.allclose(back, boxes, atol=1e-10)
    assert torch.allclose(transformed(boxes, matrix)[:, :3], boxes[:, :3] @ matrix[:3, :3].T + matrix[:3, 3])


def test_level_turn_by_hand_and_in_batches() -> None:
    matrix = torch.from_numpy(pose([10.0, 0.0, 1.0], [math.cos(0.25), 0.0, 0.0, math.sin(0.25)]))
    box = torch.tensor([[2.0, 0, 0, 4, 2, 1, 0.3, 1, 0]], dtype=torch.float64)
    c, v = math.cos(0.5), math.sin(0.5)
    expected = torch.tensor([[10 + 2 * c, 2 * v, 1, 4, 2, 1, 0.8, c, v]], dtype=torch.float64)
    both = transformed(box.expand(2, 1, 9), torch.stack([matrix, torch.eye(4, dtype=torch.float64)]))
    assert torch.allclose(both[0], expected)
    assert torch.allclose(both[1], box)


def test_inside_against_corners() -> None:
    """A point is inside where it is left of all four sides of the outline, and between bottom and top."""
    boxes, points = some(20), some(300, 1)[:, :3]
    corners = footprints(boxes)
    edges = corners.roll(-1, 1) - corners
    to = points[None, :, None, :2] - corners[:, None]
    left = (edges[:, None, :, 0] * to[..., 1] - edges[:, None, :, 1] * to[..., 0] >= 0).all(-1)
    level = (points[None, :, 2] - boxes[:, None, 2]).abs() <= boxes[:, None, 5] / 2
    assert torch.equal(inside(points, boxes), left & level)
    assert inside(points, boxes).any()


def test_overlaps_against_a_grid_of_points() -> None:
    first, second = some(12), some(15, 2)
    first[:, 2] = second[:, 2] = 0
    grid = torch.cartesian_prod(*2 * [torch.linspace(-7, 7, 141)]).double()
    grid = torch.cat([grid, torch.zeros(len(grid), 1)], 1)
    common = (inside(grid, first).double() @ inside(grid, second).double().T) > 0
    found = overlaps(first, second)
    assert not (common & ~found).any()
    assert (found & ~common).sum() <= 5  # slivers between the points of the grid
    assert common.any()
    assert (~common).any()
