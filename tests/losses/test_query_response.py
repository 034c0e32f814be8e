"""Matched queries of two sets."""

import math

import pytest
import torch

from kd_runner.losses.query_response import QueryResponse


def test_order_and_number_of_queries_do_not_matter() -> None:
    torch.manual_seed(0)
    teacher, boxes = torch.randn(2, 3, 5) * 3, torch.rand(2, 3, 4)
    order = torch.tensor([2, 0, 1])
    student = torch.cat([torch.full((2, 1, 5), 0.0), teacher[:, order]], 1)  # a query more, the others in another order
    student_boxes = torch.cat([torch.zeros(2, 1, 4), boxes[:, order]], 1)
    for sigmoid in (False, True):
        loss = QueryResponse(min_score=0.0, sigmoid=sigmoid)(student, teacher, student_boxes, boxes)
        assert float(loss) == pytest.approx(0, abs=2e-5)


def test_a_value_by_hand() -> None:
    """One sure teacher query (p = 0.8, 0.1, and 0.1 for no object), two student queries; the nearer one is taught."""
    teacher = torch.tensor([[[0.8, 0.1, 0.1]]]).log()
    student = torch.tensor([[[0.2, 0.6, 0.2], [0.5, 0.25, 0.25]]]).log().requires_grad_()
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.5, 0.4, 0.2, 0.3]]])
    loss = QueryResponse(box_weight=2.0)(student, teacher, boxes, boxes[:, :1])
    expected = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.1 / 0.25) + 2 * 0.2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert student.grad[0, 0].abs().sum() == 0 and student.grad[0, 1].abs().sum() > 0


def test_queries_without_an_object_teach_nothing() -> None:
    teacher = torch.tensor([[[0.0, 0.0, 9.0]]])
    student = torch.randn(1, 4, 3, requires_grad=True)
    loss = QueryResponse()(student, teacher)
    loss.backward()
    assert loss.item() == 0 and student.grad.abs().sum() == 0


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="class-count mismatch: student has 3, teacher 4"):
        QueryResponse()(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="boxes of both nets"):
        QueryResponse()(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
