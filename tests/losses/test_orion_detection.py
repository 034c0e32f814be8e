"""OrionDetectionLoss compared with sums written out, and on frames without objects."""

import math

import pytest
import torch
from torch import Tensor

from kd_runner.geometry.orion_coder import encode
from kd_runner.losses.orion_detection import OrionDetectionLoss

BOX = [3.0, -4.0, 0.5, 2.0, 4.5, 1.6, 0.7, 5.0, -1.0]


def focal(logit: float, positive: bool) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if positive else -0.75 * p**2 * math.log(1 - p)


def frames(*boxes: list[list[float]]) -> dict[str, Tensor]:
    """Ground truth padded to four rows; all objects of class 1."""
    gt = {"gt_boxes": torch.zeros(len(boxes), 4, 9), "gt_labels": torch.full((len(boxes), 4), -1)}
    for i, rows in enumerate(boxes):
        gt["gt_boxes"][i, : len(rows)] = torch.tensor(rows).reshape(-1, 9)
        gt["gt_labels"][i, : len(rows)] = 1
    return gt | {"gt_mask": gt["gt_labels"] >= 0}


def test_value_of_one_layer_by_hand() -> None:
    gt = frames([BOX])
    logits = torch.tensor([[[[0.3, -1.0], [-2.0, -3.0]]]])  # (layers 1, samples 1, queries 2, classes 2)
    codes = encode(gt["gt_boxes"])[None, :, :1].repeat(1, 1, 2, 1)
    codes[0, 0, 0] += torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    codes[0, 0, 1, :2] += 50  # far away: the first query is matched
    expected = 2 * (focal(0.3, False) + focal(-1.0, True) + focal(-2.0, False) + focal(-3.0, False))
    expected += 0.25 * (2 * 0.1 + 2 * 0.2 + 0.3 + 0.4 + 0.5 + 0.6 + 0.7 + 0.8 + 0.9 + 1.0)
    assert OrionDetectionLoss()(logits, codes, **gt).item() == pytest.approx(expected, rel=1e-5)


def test_matching_ignores_the_velocity() -> None:
    gt = frames([BOX])
    codes = encode(gt["gt_boxes"])[None, :, :1].repeat(1, 1, 2, 1)
    codes[..., 0, 8:] += 100
    codes[..., 1, 0] += 1
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    OrionDetectionLoss()(logits, codes, **gt).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 0, 1] < 0 < logits.grad[0, 0, 1, 1]


def test_layers_add_up_and_objects_divide() -> None:
    torch.manual_seed(0)
    loss, gt = OrionDetectionLoss(), frames([BOX], [BOX, [v + 1 for v in BOX]])
    logits, codes = torch.randn(3, 2, 6, 2), torch.randn(3, 2, 6, 10)
    whole = loss(logits, codes, **gt)
    layers = [loss(logits[i : i + 1], codes[i : i + 1], **gt) for i in range(3)]
    assert whole.item() == pytest.approx(sum(layers).item(), rel=1e-5)  # type: ignore[union-attr]
    samples = [
        loss(logits[:, i : i + 1], codes[:, i : i + 1], **{k: v[i : i + 1] for k, v in gt.items()}) for i in (0, 1)
    ]
    assert whole.item() == pytest.approx((samples[0] + 2 * samples[1]).item() / 3, rel=1e-5)


def test_denoising_queries_by_hand() -> None:
    gt = frames([])
    empty = OrionDetectionLoss()(torch.zeros(1, 1, 0, 2), torch.zeros(1, 1, 0, 10), **gt)
    boxes = torch.tensor([[BOX, BOX, [0.0] * 9]])
    denoising = {
        "dn_logits": torch.tensor([[[[0.3, -1.0], [-2.0, -3.0], [9.0, 9.0]]]]),
        "dn_codes": encode(boxes)[None] + torch.tensor([0.1, 0.0, 7.0])[:, None],
        "dn_boxes": boxes,
        "dn_labels": torch.tensor([[0, 2, -1]]),  # class 0, background, padding
        "dn_mask": torch.tensor([[True, True, False]]),
    }
    value = OrionDetectionLoss()(torch.zeros(1, 1, 0, 2), torch.zeros(1, 1, 0, 10), **gt, **denoising)
    classes = focal(0.3, True) + focal(-1.0, False) + focal(-2.0, False) + focal(-3.0, False)
    expected = 2 * classes / max(1, 2 * math.pi / 6 * 0.75**3) + 0.25 * 12 * 0.1 / 2
    assert (value - empty).item() == pytest.approx(expected, rel=1e-5)


def test_frames_without_objects_train_only_the_background() -> None:
    logits, codes = torch.zeros(2, 1, 3, 2, requires_grad=True), torch.zeros(2, 1, 3, 10, requires_grad=True)
    none = {"dn_logits": torch.zeros(2, 1, 0, 2), "dn_codes": torch.zeros(2, 1, 0, 10)}
    none |= {
        "dn_boxes": torch.zeros(1, 0, 9),
        "dn_labels": torch.zeros(1, 0).long(),
        "dn_mask": torch.zeros(1, 0).bool(),
    }
    OrionDetectionLoss()(logits, codes, **frames([]), **none).backward()
    assert logits.grad is not None and (logits.grad > 0).all()
    assert codes.grad is None or codes.grad.abs().max() == 0


def test_a_sample_without_labels_does_not_count() -> None:
    torch.manual_seed(0)
    loss, both = OrionDetectionLoss(), frames([BOX], [])
    logits, codes = torch.randn(3, 2, 6, 2), torch.randn(3, 2, 6, 10)
    alone = loss(logits[:, :1], codes[:, :1], **{name: value[:1] for name, value in both.items()})
    assert loss(logits, codes, **both, labeled=torch.tensor([True, False])).item() == pytest.approx(alone.item())
    assert loss(logits, codes, **both).item() > alone.item()
