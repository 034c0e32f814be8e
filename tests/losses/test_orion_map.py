"""OrionMapLoss compared with sums written out."""

import pytest
import torch
from torch import Tensor

from kd_runner.losses.orion_map import OrionMapLoss


def truth(*lines: list[list[float]]) -> dict[str, Tensor]:
    """One frame with lines of two points (x, y), class 0, padded to three."""
    points = torch.zeros(1, 3, 2, 2)
    points[0, : len(lines)] = torch.tensor(lines).reshape(-1, 2, 2)
    labels = torch.tensor([[0 if i < len(lines) else -1 for i in range(3)]])
    return {"line_points": points, "line_labels": labels, "line_mask": labels >= 0}


def test_points_count_in_meters_and_z_is_zero() -> None:
    gt = truth([[0.0, 0.0], [10.0, 0.0]])
    lines = torch.zeros(1, 1, 1, 2, 3)
    base = OrionMapLoss()(torch.zeros(1, 1, 1, 6), lines + torch.tensor([[0.0, 0, 0], [10.0, 0, 0]]), **gt)
    off = OrionMapLoss()(torch.zeros(1, 1, 1, 6), lines + torch.tensor([[0.0, 0, 2], [13.0, 4, 0]]), **gt)
    assert (off - base).item() == pytest.approx(0.02 * (2 + 3 + 4), rel=1e-5)


def test_a_line_drawn_from_its_other_end_is_another_line() -> None:
    lines = torch.tensor([[[[[0.0, 0, 0], [10.0, 0, 0]]]]])
    forth, back = (truth([[0.0, 0.0], [10.0, 0.0]]), truth([[10.0, 0.0], [0.0, 0.0]]))
    difference = OrionMapLoss()(torch.zeros(1, 1, 1, 6), lines, **back) - OrionMapLoss()(
        torch.zeros(1, 1, 1, 6), lines, **forth
    )
    assert difference.item() == pytest.approx(0.02 * 20, rel=1e-5)


def test_one_to_many_matches_every_line_several_times() -> None:
    gt, loss = truth([[0.0, 0.0], [10.0, 0.0]]), OrionMapLoss(one_to_many=3)
    many = torch.zeros(2, 1, 4, 6, requires_grad=True)
    points = torch.zeros(2, 1, 4, 2, 3)
    points[:, :, 3] += 50  # the query that is left over
    single = loss(torch.zeros(2, 1, 1, 6), torch.zeros(2, 1, 1, 2, 3), **gt)
    total = loss(
        torch.zeros(2, 1, 1, 6), torch.zeros(2, 1, 1, 2, 3), **gt, line_logits_one2many=many, lines_one2many=points
    )
    total.backward()
    assert many.grad is not None
    assert (many.grad[:, 0, :, 0] < 0).tolist() == [[True, True, True, False]] * 2
    focal = 1.5 * (3 * (0.25 + 5 * 0.75) + 6 * 0.75) * 0.25 * 0.6931472
    assert (total - single).item() == pytest.approx(2 * (focal + 3 * 0.02 * 10) / 3, rel=1e-4)


def test_a_frame_without_lines() -> None:
    logits, lines = torch.zeros(1, 1, 2, 6, requires_grad=True), torch.zeros(1, 1, 2, 2, 3, requires_grad=True)
    OrionMapLoss()(logits, lines, **truth(), line_logits_one2many=logits, lines_one2many=lines).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all() and (logits.grad > 0).all()


def test_a_sample_without_labels_does_not_count() -> None:
    torch.manual_seed(0)
    one, none = truth([[0.0, 0.0], [10.0, 0.0]]), truth()
    both = {name: torch.cat((one[name], none[name])) for name in one}
    logits, lines, loss = torch.randn(2, 2, 4, 6), torch.randn(2, 2, 4, 2, 3), OrionMapLoss()
    alone = loss(logits[:, :1], lines[:, :1], **one)
    assert loss(logits, lines, **both, labeled=torch.tensor([True, False])).item() == pytest.approx(alone.item())
    assert loss(logits, lines, **both).item() > alone.item()
