"""CRD of objects on a bird's-eye view."""

import copy

import pytest
import torch
from torch import Tensor

from kd_runner.losses.crd import CRD, ObjectCRD
from kd_runner.losses.functional.pooling import at_points

RANGE = (-8.0, -4.0, 8.0, 4.0)  # 16 m along x, 8 m along y


def plane(x_cells: int, y_cells: int) -> Tensor:
    """(1, 2, X, Y): channel 0 is x in meters at the cell's center, channel 1 is y."""
    x = -8 + 16 * (torch.arange(x_cells) + 0.5) / x_cells
    y = -4 + 8 * (torch.arange(y_cells) + 0.5) / y_cells
    return torch.stack(torch.meshgrid(x, y, indexing="ij"))[None]


def test_samples_of_a_map_of_coordinates_are_the_points() -> None:
    """Bilinear is exact on a plane; dim 2 is x, dim 3 is y; each level has its own grid."""
    points = torch.tensor([[[0.3, -1.1], [5.9, 2.6], [-7.0, 3.0]]])
    sampled = at_points([plane(16, 8), plane(32, 4)], points, RANGE)
    assert torch.allclose(sampled, torch.cat([points, points], dim=2), atol=1e-5)
    beyond = at_points(plane(16, 8), torch.tensor([[[99.0, -99.0]]]), RANGE)
    assert torch.allclose(beyond, torch.tensor([7.5, -3.5]))


def test_only_boxes_that_are_there_and_in_range_count() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 8, 4, generator=generator), torch.randn(2, 5, 8, 4, generator=generator)
    boxes = torch.tensor([[[1.0, 2], [3, -1], [0, 0]], [[-5, 3], [9, 0], [2, 2]]])  # the fifth is out of range
    mask = torch.tensor([[True, True, False], [True, True, False]])
    index, label = torch.tensor([[4, 5, 0], [6, 7, 0]]), torch.tensor([[0, 1, 0], [0, 2, 0]])
    torch.manual_seed(0)
    loss = ObjectCRD(CRD(n_data=10, num_negatives=6, dim=4), RANGE)
    loss.build(student, teacher, boxes=boxes, index=index, label=label, mask=mask)
    plain, before = copy.deepcopy(loss.crd), loss.crd.memory.student.clone()
    value = loss(student.requires_grad_(), teacher, boxes=boxes, index=index, label=label, mask=mask)
    counted = [(0, 0), (0, 1), (1, 0)]
    student_rows, teacher_rows = (
        torch.stack([at_points(maps[b : b + 1], boxes[b : b + 1, m : m + 1], RANGE)[0, 0] for b, m in counted])
        for maps in (student, teacher)
    )
    assert value.item() == pytest.approx(
        plain(student_rows, teacher_rows, torch.tensor([4, 5, 6]), torch.tensor([0, 1, 0])).item()
    )
    assert (loss.crd.memory.student != before).any(1).nonzero().flatten().tolist() == [4, 5, 6]
    value.backward()
    assert (student.grad != 0).any(1).any()


@pytest.mark.parametrize("memory", [{"n_data": 10}, {"queue": 10}])
def test_no_object_is_zero_and_fixes_nothing(memory: dict[str, int]) -> None:
    maps, none = torch.randn(1, 3, 8, 4), torch.zeros(1, 2, dtype=torch.int64)
    loss = ObjectCRD(CRD(**memory, num_negatives=6, dim=4), RANGE)
    loss.build(maps, maps, boxes=torch.zeros(1, 2, 9))
    before = copy.deepcopy(loss.state_dict())
    value = loss(maps, maps, boxes=torch.zeros(1, 2, 9), index=none, label=none, mask=none.bool())
    value.backward()
    assert value == 0 and all(torch.equal(before[key], after) for key, after in loss.state_dict().items())
    assert all((p.grad == 0).all() for p in loss.parameters())


def test_a_map_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"maps \(B, C, X, Y\) needed, not \(1, 3, 8\)"):
        at_points(torch.zeros(1, 3, 8), torch.zeros(1, 1, 2), RANGE)
