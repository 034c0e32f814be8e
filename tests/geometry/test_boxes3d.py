"""Corners, conversions, transforms, insides and overlaps of boxes."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from kd_runner.geometry import boxes3d
from kd_runner.geometry.boxes3d import corners, footprints, inside, inverse_transform, overlaps, transform
from kd_runner.geometry.poses import pose


def some(count: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    rows = torch.rand(count, 9, generator=g, dtype=torch.float64) * 6 - 3
    rows[:, 3:6] = rows[:, 3:6].abs() + 0.2
    return rows


# A car of 4 x 2 x 1.5 m at (10, 20, 1) that heads along +y: its length lies along y, its left side at smaller x.
CAR = [10.0, 20.0, 1.0, 4.0, 2.0, 1.5, math.pi / 2, 0.0, 3.0]
CAR_CORNERS = [
    [11, 18, 0.25], [11, 18, 1.75],  # rear right, lower and upper
    [9, 18, 0.25], [9, 18, 1.75],  # rear left
    [11, 22, 0.25], [11, 22, 1.75],  # front right
    [9, 22, 0.25], [9, 22, 1.75],  # front left
]  # fmt: skip


def test_corners_by_hand() -> None:
    assert torch.allclose(corners(torch.tensor(CAR)), torch.tensor(CAR_CORNERS))
    turned = torch.tensor([0.0, 0, 0, 2, 1, 1, math.atan2(4, 3)])  # the heading is (0.6, 0.8)
    assert torch.allclose(corners(turned)[7], torch.tensor([0.6 - 0.4, 0.8 + 0.3, 0.5]))  # front left upper
    assert torch.allclose(corners(turned)[0], torch.tensor([-0.6 + 0.4, -0.8 - 0.3, -0.5]))  # rear right lower


def test_footprints_by_hand_and_as_the_corners() -> None:
    expected = torch.tensor([[9.0, 22], [9, 18], [11, 18], [11, 22]])  # front left, rear left, rear right, front right
    assert torch.allclose(footprints(torch.tensor(CAR)), expected)
    boxes = some(20)
    assert torch.equal(footprints(boxes), corners(boxes)[:, [6, 2, 0, 4], :2])


def test_bench2drive_by_hand() -> None:
    """Heading +y is the yaw -pi there, and the width stands before the length."""
    stored = torch.tensor([10.0, 20.0, 1.0, 2.0, 4.0, 1.5, -math.pi, 0.0, 3.0])
    assert torch.allclose(corners(boxes3d.from_bench2drive(stored)), torch.tensor(CAR_CORNERS), atol=1e-5)
    assert torch.allclose(boxes3d.to_bench2drive(torch.tensor(CAR)), stored)


def test_conversions_there_and_back() -> None:
    boxes = some(50)
    for there, back in (
        (boxes3d.to_bench2drive, boxes3d.from_bench2drive),
        (boxes3d.to_mit_bevfusion, boxes3d.from_mit_bevfusion),
        (lambda rows: boxes3d.to_nuscenes(rows), lambda parts: boxes3d.from_nuscenes(*parts)),
    ):
        assert torch.allclose(back(there(boxes)), boxes, atol=1e-12)


def test_nuscenes_by_hand() -> None:
    """The quaternion of 90 degrees about z; size is width, length, height."""
    half = math.sqrt(0.5)
    translation, size, rotation, velocity = boxes3d.to_nuscenes(torch.tensor(CAR))
    assert torch.allclose(translation, torch.tensor([10.0, 20, 1])) and torch.allclose(velocity, torch.tensor([0.0, 3]))
    assert torch.allclose(size, torch.tensor([2.0, 4, 1.5]))
    assert torch.allclose(rotation, torch.tensor([half, 0, 0, half]))
    box = boxes3d.from_nuscenes(translation, size, 7 * rotation, velocity)  # of any length
    assert torch.allclose(corners(box), torch.tensor(CAR_CORNERS), atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 3.0, -3.0, np.pi, -np.pi, 4.0, 100.0])
def test_wrapped_angles(angle: float) -> None:
    wrapped = boxes3d.wrap_angle(torch.tensor(angle, dtype=torch.float64)).item()
    assert -np.pi <= wrapped < np.pi
    assert math.cos(wrapped) == pytest.approx(math.cos(angle)) and math.sin(wrapped) == pytest.approx(math.sin(angle))


def test_there_and_back_also_with_a_tilt() -> None:
    matrix = torch.from_numpy(pose([1200.0, 300.0, 2.0], [0.9, 0.05, -0.04, 0.4]))
    boxes = some(50)
    back = inverse_transform(transform(boxes, matrix), matrix)
    assert torch.allclose(back, boxes, atol=1e-10)
    assert torch.allclose(transform(boxes, matrix)[:, :3], boxes[:, :3] @ matrix[:3, :3].T + matrix[:3, 3])


def test_level_turn_by_hand_and_in_batches() -> None:
    matrix = torch.from_numpy(pose([10.0, 0.0, 1.0], [math.cos(0.25), 0.0, 0.0, math.sin(0.25)]))
    box = torch.tensor([[2.0, 0, 0, 4, 2, 1, 0.3, 1, 0]], dtype=torch.float64)
    c, v = math.cos(0.5), math.sin(0.5)
    expected = torch.tensor([[10 + 2 * c, 2 * v, 1, 4, 2, 1, 0.8, c, v]], dtype=torch.float64)
    both = transform(box.expand(2, 1, 9), torch.stack([matrix, torch.eye(4, dtype=torch.float64)]))
    assert torch.allclose(both[0], expected)
    assert torch.allclose(both[1], box)


def test_inside_against_corners() -> None:
    """A point is inside where it is left of all four sides of the outline, and between bottom and top."""
    boxes, points = some(20), some(300, 1)[:, :3]
    outline = footprints(boxes)
    edges = outline.roll(-1, 1) - outline
    to = points[None, :, None, :2] - outline[:, None]
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
    actual = overlaps(first, second)
    assert not (common & ~actual).any()
    assert (actual & ~common).sum() <= 5  # slivers between the points of the grid
    assert common.any()
    assert (~common).any()


def test_headings_of_rotations_are_those_seen_from_above() -> None:
    """Against scipy: the direction of the box's own x axis, projected to the ground."""
    rotation = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    empty = torch.zeros(50, 3, dtype=torch.float64)
    forward = Rotation.from_quat(rotation[:, [1, 2, 3, 0]].numpy()).apply([1.0, 0.0, 0.0])
    yaw = boxes3d.from_nuscenes(empty, empty + 1, rotation, empty[:, :2])[:, 6]
    torch.testing.assert_close(yaw, torch.atan2(*torch.from_numpy(forward[:, [1, 0]]).T))


def test_points_on_the_border_are_inside() -> None:
    """As nuScenes counts them."""
    box = torch.tensor([[0.0, 0.0, 0.0, 4.0, 2.0, 1.0, 0.0, 0.0, 0.0]])
    points = torch.tensor(
        [[2.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0], [0, 0, 0.5], [2.01, 0, 0], [0, 1.01, 0], [0, 0, 0.51]]
    )
    assert boxes3d.inside(points, box).tolist() == [[True] * 4 + [False] * 3]
