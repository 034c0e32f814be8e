"""TransFusionLoss and its parts against loops and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_runner.geometry.rotated_iou import rotated_iou_3d
from kd_runner.losses.functional.gaussian_focal import center_heatmap, gaussian_focal, gaussian_radius
from kd_runner.losses.transfusion import TransFusionLoss

GRID = {"voxel_size": (0.1, 0.2, 0.2), "point_cloud_range": (-4.0, -4.0, -3.0, 4.0, 4.0, 3.0), "out_size_factor": 4}
CLASSES, X, Y = 3, 20, 10


def truth() -> dict[str, Tensor]:
    """Two samples: two objects, and none."""
    boxes = torch.zeros(2, 3, 9)
    boxes[0, 0] = torch.tensor([1.0, -2.0, 0.5, 2.0, 1.0, 1.0, 0.7, 0.5, 0.0])
    boxes[0, 1] = torch.tensor([-3.0, 3.0, 0.0, 1.0, 1.0, 2.0, -2.0, 0.0, 0.3])
    mask = torch.tensor([[True, True, False], [False] * 3])
    return {"gt_boxes": boxes, "gt_labels": torch.tensor([[2, 0, 0], [0, 0, 0]]), "gt_mask": mask}


def guess(layers: int = 1, seed: int = 0) -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return {
        "heatmap": torch.randn(2, CLASSES, X, Y, generator=noise).requires_grad_(),
        "codes": torch.randn(layers, 2, 6, 10, generator=noise).requires_grad_(),
        "cls_logits": torch.randn(layers, 2, 6, CLASSES, generator=noise).requires_grad_(),
    }


def area_by_counting(a: Tensor, b: Tensor, steps: int = 400) -> float:
    """Share of a fine grid over a that lies in b, times a's area."""
    along = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps - 0.5
    u, v = torch.meshgrid(along * a[3], along * a[4], indexing="ij")
    x = a[0] + u * a[6].cos() - v * a[6].sin() - b[0]
    y = a[1] + u * a[6].sin() + v * a[6].cos() - b[1]
    inside = (x * b[6].cos() + y * b[6].sin()).abs() <= b[3] / 2
    inside &= (y * b[6].cos() - x * b[6].sin()).abs() <= b[4] / 2
    return float(inside.double().mean() * a[3] * a[4])


def test_iou_of_turned_boxes_is_what_counting_gives() -> None:
    noise = torch.Generator().manual_seed(0)
    boxes = torch.rand(6, 7, generator=noise, dtype=torch.float64) * 3 + 0.3
    result = rotated_iou_3d(boxes, boxes)
    for i, j in itertools.product(range(6), repeat=2):
        a, b = boxes[i], boxes[j]
        z = min(a[2] + a[5] / 2, b[2] + b[5] / 2) - max(a[2] - a[5] / 2, b[2] - b[5] / 2)
        inter = area_by_counting(a, b) * max(float(z), 0.0)
        expected = inter / (a[3:6].prod() + b[3:6].prod() - inter)
        assert result[i, j].item() == pytest.approx(expected.item(), abs=5e-3)
    assert (result > 0.01).sum() > 12


@pytest.mark.parametrize("yaw", [0.0, 0.4, math.pi / 2, math.pi])
def test_iou_in_closed_form(yaw: float) -> None:
    """Equal boxes, a half shift along the heading, a touching side, a crossing at right angles; in float32."""
    box = torch.tensor([10.0, -5.0, 1.0, 4.0, 2.0, 1.5, yaw])
    ahead = torch.tensor([math.cos(yaw), math.sin(yaw), 0, 0, 0, 0, 0])
    turned = box + torch.tensor([0, 0, 0, 0, 0, 0, math.pi / 2])
    others = torch.stack([box, box + 2 * ahead, box + 4 * ahead, turned])
    expected = torch.tensor([[1.0, 1 / 3, 0.0, 4 / 12]])
    torch.testing.assert_close(rotated_iou_3d(box[None], others), expected, atol=1e-5, rtol=0)


def test_radius_in_closed_form() -> None:
    """A square of side s, overlap o: the case of equal sizes gives s (1 + sqrt(1 - (1 - o) / (1 + o))), and so on."""
    side, overlap = 6.0, 0.1
    cases = [
        side * (1 + math.sqrt(1 - (1 - overlap) / (1 + overlap))),
        2 * side * (1 + math.sqrt(overlap)),
        2 * side * (math.sqrt(overlap**2 + overlap * (1 - overlap)) - overlap),
    ]
    result = gaussian_radius(torch.tensor(side), torch.tensor(side), overlap)
    assert result.item() == pytest.approx(min(cases), rel=1e-5)


def test_bumps_by_a_loop_over_cells() -> None:
    cells, radius = torch.tensor([[[3, 8], [4, 8], [19, 0], [0, 0]]]), torch.tensor([[2, 3, 2, 2]])
    labels, mask = torch.tensor([[1, 1, 0, 2]]), torch.tensor([[True, True, True, False]])
    expected = np.zeros((1, CLASSES, X, Y))
    for n, (x, y) in itertools.product(range(3), itertools.product(range(X), range(Y))):
        dx, dy, r = x - cells[0, n, 0].item(), y - cells[0, n, 1].item(), radius[0, n].item()
        if max(abs(dx), abs(dy)) <= r:
            value = math.exp(-(dx * dx + dy * dy) / (2 * ((2 * r + 1) / 6) ** 2))
            expected[0, labels[0, n], x, y] = max(expected[0, labels[0, n], x, y], value)
    result = center_heatmap(cells, radius, labels, mask, (CLASSES, X, Y))
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


def test_gaussian_focal_in_closed_form() -> None:
    """p = 1/2 everywhere: log 2 / 4 for a center, log 2 / 4 (1 - target)^4 elsewhere, per center."""
    target = torch.tensor([[1.0, 0.5, 0.0, 1.0]])
    expected = math.log(2) / 4 * (2 + 0.5**4 + 1) / 2
    assert gaussian_focal(torch.zeros(1, 4), target).item() == pytest.approx(expected, rel=1e-6)


def test_exact_predictions_cost_nothing_and_x_is_dimension_2() -> None:
    loss, batch = TransFusionLoss(**GRID), truth()
    out = {"heatmap": torch.full((2, CLASSES, X, Y), -20.0), "cls_logits": torch.full((1, 2, 6, CLASSES), -20.0)}
    out["codes"] = torch.zeros(1, 2, 6, 10)
    cells = []
    for proposal, thing in ((4, 0), (1, 1)):
        box, label = batch["gt_boxes"][0, thing], batch["gt_labels"][0, thing]
        out["codes"][0, 0, proposal] = loss.coder.encode(box)
        out["cls_logits"][0, 0, proposal, label] = 20.0
        cells.append((int((box[0] + 4) / 0.4), int((box[1] + 4) / 0.8)))
        out["heatmap"][0, label, cells[-1][0], cells[-1][1]] = 20.0
    assert cells == [(12, 2), (2, 8)]
    parts = loss.parts(**out, **batch)
    assert parts["box"].item() == 0 and parts["class"].item() < 1e-6 and parts["heatmap"].item() < 1e-3
    sample, proposal, thing = loss.match(
        out["codes"][0], out["cls_logits"][0], batch["gt_boxes"], batch["gt_labels"], batch["gt_mask"]
    )
    assert set(zip(sample.tolist(), proposal.tolist(), thing.tolist())) == {(0, 4, 0), (0, 1, 1)}


def test_matching_is_the_cheapest_of_all() -> None:
    """Cost by the formulas, one pair at a time; all assignments tried."""
    loss, batch, out = TransFusionLoss(**GRID), truth(), guess(seed=2)
    codes, logits = out["codes"][0].detach(), out["cls_logits"][0].detach()
    boxes = loss.coder.decode(codes)[0]
    cost = np.zeros((6, 2))
    for i, j in itertools.product(range(6), range(2)):
        gt = batch["gt_boxes"][0, j]
        p = logits[0, i, batch["gt_labels"][0, j]].sigmoid().item()
        focal = 0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p)
        center = ((boxes[i, :2] - gt[:2]).abs() / 8).sum().item()
        cost[i, j] = 0.15 * focal + 0.25 * center - 0.25 * rotated_iou_3d(boxes[i : i + 1], gt[None]).item()
    best = min(itertools.permutations(range(6), 2), key=lambda pair: cost[pair[0], 0] + cost[pair[1], 1])
    _, proposal, thing = loss.match(codes, logits, batch["gt_boxes"], batch["gt_labels"], batch["gt_mask"])
    assert {t: p for p, t in zip(proposal.tolist(), thing.tolist())} == {0: best[0], 1: best[1]}


def test_total_is_the_weighted_sum_and_layers_are_averaged() -> None:
    loss, batch = TransFusionLoss(**GRID, heatmap_weight=2.0, class_weight=3.0), truth()
    out = guess(layers=2)
    parts = loss.parts(**out, **batch)
    total = loss(**out, **batch)
    torch.testing.assert_close(total, 2 * parts["heatmap"] + 3 * parts["class"] + 0.25 * parts["box"])
    single = [
        loss.parts(out["heatmap"], out["codes"][n : n + 1], out["cls_logits"][n : n + 1], **batch) for n in range(2)
    ]
    for name in ("class", "box"):
        torch.testing.assert_close(parts[name], (single[0][name] + single[1][name]) / 2)
    total.backward()
    assert all(value.grad.isfinite().all() and value.grad.abs().sum() > 0 for value in out.values())


def test_a_batch_without_objects() -> None:
    batch, out = truth(), guess()
    batch["gt_mask"] = torch.zeros_like(batch["gt_mask"])
    loss = TransFusionLoss(**GRID)
    value = loss(**out, **batch)
    value.backward()
    assert value.item() > 0 and loss.parts(**out, **batch)["box"].item() == 0
    assert all(tensor.grad.isfinite().all() for tensor in out.values())


def test_samples_without_labels_do_not_count() -> None:
    """Neither as objects nor as background, unlike a sample that is known to hold none."""
    batch, out, loss = truth(), guess(), TransFusionLoss(**GRID)
    first = {name: value[:1] for name, value in batch.items()}
    alone = loss(out["heatmap"][:1], out["codes"][:, :1], out["cls_logits"][:, :1], **first)
    assert torch.equal(loss(**out, **batch, labeled=torch.tensor([True, False])), alone)
    assert not torch.equal(loss(**out, **batch, labeled=torch.tensor([True, True])), alone)
    none = loss(**out, **batch, labeled=torch.tensor([False, False]))
    none.backward()
    assert none.item() == 0 and out["heatmap"].grad.abs().sum() == 0


def test_objects_off_the_map_and_padding_do_not_count() -> None:
    batch, out, loss = truth(), guess(), TransFusionLoss(**GRID)
    value = loss(**out, **batch)
    batch["gt_boxes"][0, 2] = torch.tensor([4.5, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    batch["gt_mask"][0, 2] = True
    batch["gt_boxes"][1] = float("nan")
    assert torch.equal(loss(**out, **batch), value)


def test_counted_objects_alone_have_a_loss() -> None:
    batch, loss, cost = truth(), TransFusionLoss(**GRID), {}
    for name, counted in (("first", [True, False, False]), ("second", [False, True, False]), ("none", [False] * 3)):
        out = guess()
        value = loss(**out, **batch, counted=torch.tensor([counted, [False] * 3]))
        value.backward()
        cost[name] = value.item(), {key: tensor.grad for key, tensor in out.items()}
    assert cost["none"][0] == 0 and all((grad == 0).all() for grad in cost["none"][1].values())
    for name, index in (("first", 0), ("second", 1)):
        value, grads = cost[name]
        out = {key: tensor.detach() for key, tensor in guess().items()}
        matches = loss.match(
            out["codes"][0], out["cls_logits"][0], batch["gt_boxes"], batch["gt_labels"], batch["gt_mask"]
        )
        proposal = int(matches[1][matches[2] == index])
        assert value > 0 and grads["codes"].abs().sum((0, 3)).nonzero().tolist() == [[0, proposal]]
        assert grads["cls_logits"].abs().sum((0, 3)).nonzero().tolist() == [[0, proposal]]
        label, x, y = (int(v) for v in (batch["gt_labels"][0, index], *((12, 2), (2, 8))[index]))
        touched = grads["heatmap"].nonzero()
        assert (touched[:, :2] == torch.tensor([0, label])).all() and grads["heatmap"][0, label, x, y] < 0
        assert ((touched[:, 2:] - torch.tensor([x, y])).abs() <= 5).all()


def test_counted_box_class_and_heatmap_are_sums_over_their_own_pairs() -> None:
    """All objects counted: the box part is that of the plain loss, the class part that of matched proposals."""
    batch, out, loss = truth(), guess(), TransFusionLoss(**GRID)
    plain, counted = loss.parts(**out, **batch), loss.parts(**out, **batch, counted=batch["gt_mask"])
    torch.testing.assert_close(counted["box"], plain["box"])
    assert 0 < counted["class"] < plain["class"] and 0 < counted["heatmap"] < plain["heatmap"]


def test_what_does_not_fit_is_said() -> None:
    batch, out = truth(), guess()
    with pytest.raises(ValueError, match="point_cloud_range"):
        TransFusionLoss()(**out, **batch)
    batch["gt_labels"][0, 0] = 3
    with pytest.raises(ValueError, match="gt_labels"):
        TransFusionLoss(**GRID)(**out, **batch)


def test_radius_grows_with_the_box() -> None:
    """CornerNet's radius is homogeneous, for boxes far below a cell too."""
    for side in (0.05, 0.4, 3.0):
        one = gaussian_radius(torch.tensor([side]), torch.tensor([2 * side]), 0.1)
        two = gaussian_radius(torch.tensor([2 * side]), torch.tensor([4 * side]), 0.1)
        torch.testing.assert_close(two, 2 * one)


def test_a_sure_mistake_of_the_heat_map_is_finite() -> None:
    """p is clamped to 1e-4 from both ends."""
    for logit, target in ((100.0, 0.0), (-100.0, 1.0)):
        loss = gaussian_focal(torch.tensor([logit]), torch.tensor([target]))
        assert loss.item() == pytest.approx((1 - 1e-4) ** 2 * -math.log(1e-4), rel=1e-3)
