"""Voxelize against a dictionary of lists."""

import pytest
import torch

from kd_runner.models.bevfusion.voxels import Voxelize, grid_shape

SIZE, RANGE = (0.5, 1.0, 2.0), (-2.0, -3.0, -4.0, 2.0, 3.0, 4.0)


def cloud(seed: int = 0, length: int = 200) -> torch.Tensor:
    noise = torch.Generator().manual_seed(seed)
    return (torch.rand(2, length, 5, generator=noise) - 0.5) * torch.tensor([5.0, 7.0, 9.0, 1.0, 1.0])


def by_hand(points: torch.Tensor, count: int, most: int) -> dict[tuple[int, ...], list[torch.Tensor]]:
    """Points of each cell, the cells in the order in which they turn up."""
    cells: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for point in points[:count]:
        if all(low <= value < high for value, low, high in zip(point.tolist(), RANGE[:3], RANGE[3:])):
            cell = tuple(int((value - low) // size) for value, low, size in zip(point.tolist(), RANGE[:3], SIZE))
            cells.setdefault(cell, [])
            if len(cells[cell]) < most:
                cells[cell].append(point)
    return cells


def test_mean_of_the_first_points_of_each_cell_in_order_x_y_z() -> None:
    points = cloud()
    voxels = Voxelize(SIZE, RANGE, max_points=2)(points, torch.tensor([200, 120]))
    expected = {
        (sample, *cell): torch.stack(inside).mean(0)
        for sample, count in enumerate((200, 120))
        for cell, inside in by_hand(points[sample], count, 2).items()
    }
    assert [tuple(row) for row in voxels.coordinates.tolist()] == sorted(expected)
    torch.testing.assert_close(voxels.features, torch.stack([expected[cell] for cell in sorted(expected)]))


def test_voxels_beyond_the_limit_are_those_that_turn_up_last() -> None:
    points = cloud(1)
    voxelize = Voxelize(SIZE, RANGE, max_voxels=(30, 10_000))
    with pytest.warns(UserWarning, match="max_voxels=30"):
        voxels = voxelize(points, torch.tensor([200, 20]))
    voxels_by_hand = [set(by_hand(points[0], 200, 10)), set(by_hand(points[1], 20, 10))]
    kept = [{tuple(row[1:]) for row in voxels.coordinates.tolist() if row[0] == sample} for sample in (0, 1)]
    assert kept[0] == set(list(by_hand(points[0], 200, 10))[:30])
    assert kept[1] == voxels_by_hand[1]
    assert voxels.dropped.tolist() == [len(voxels_by_hand[0]) - 30, 0]
    assert voxelize.eval()(points, torch.tensor([200, 20])).dropped.tolist() == [0, 0]


def test_nothing_in_range_is_said() -> None:
    with pytest.raises(ValueError, match="point_cloud_range"):
        Voxelize(SIZE, RANGE)(torch.full((1, 4, 5), 100.0), torch.tensor([4]))


def test_public_grid_and_a_range_that_does_not_divide() -> None:
    assert grid_shape((0.075, 0.075, 0.2), (-54, -54, -5, 54, 54, 3)) == (1440, 1440, 40)
    with pytest.raises(ValueError, match="along y"):
        grid_shape((1, 0.7, 1), (0, 0, 0, 4, 4, 4))
