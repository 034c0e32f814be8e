"""Mean IoU the VOC way, by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_runner.metrics.segmentation_iou import SegmentationIoU


def pixels(*runs: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """(prediction, target) of 20 x 20 from (count, predicted class, true class)."""
    predicted = [p for count, p, _ in runs for _ in range(count)]
    target = [t for count, _, t in runs for _ in range(count)]
    return torch.tensor(predicted).view(1, 20, 20), torch.tensor(target).view(1, 20, 20)


# One image with an object that is mostly found, one where an object of 2 pixels is missed; class 3 is nowhere.
# class 0: (200 + 298) hits, union 498 + 8 + 12 + 2 + 14 + 6 = 540; class 1: 180 / (180 + 20 + 2); class 2: 80 / 100.
FIRST = pixels((200, 0, 0), (180, 1, 1), (8, 1, 0), (12, 0, 1))
SECOND = pixels((298, 0, 0), (2, 0, 1), (80, 2, 2), (14, 2, 0), (6, 0, 2))
GOLDEN = {"iou/0": 498 / 540, "iou/1": 180 / 202, "iou/2": 80 / 100}


def measured(*batches: tuple[Tensor, Tensor], **options: object) -> dict[str, float]:
    metric = SegmentationIoU(**({"num_classes": 4} | options))
    for preds, target in batches:
        metric.update(preds=preds, target=target)
    return {name: value.item() for name, value in metric.compute().items()}


def test_golden_numbers() -> None:
    """0.8711 of .9222, .8911, .8000 and nan: the absent class is left out of the mean, not counted as 0."""
    result = measured(FIRST, SECOND)
    assert {name: result[name] for name in GOLDEN} == pytest.approx(GOLDEN, rel=1e-6)
    assert np.isnan(result["iou/3"])
    assert result["miou"] == pytest.approx(0.8711, abs=5e-5)
    assert result["pixel_accuracy"] == pytest.approx((498 + 180 + 80) / 800)


def test_uneven_batches_equal_one_update() -> None:
    preds, target = (torch.cat(parts).flatten() for parts in zip(FIRST, SECOND))
    parts = [(preds[a:b][None], target[a:b][None]) for a, b in ((0, 7), (7, 550), (550, 800))]
    assert measured(*parts) == pytest.approx(measured((preds[None], target[None])), nan_ok=True)
    assert measured(*parts) == pytest.approx(measured(FIRST, SECOND), nan_ok=True)


def test_ignored_pixels_do_not_count_whatever_is_predicted_there() -> None:
    preds, target = (x.clone() for x in FIRST)
    wrong = preds != target
    target[wrong] = 255
    result = measured((preds, target))
    assert result["miou"] == result["pixel_accuracy"] == 1.0


def test_a_class_that_is_predicted_but_not_there_counts_zero() -> None:
    """The mean of .9375 and 0 is .46875."""
    target = torch.zeros(1, 16, dtype=torch.long)
    preds = target.clone()
    preds[0, 0] = 1
    result = measured((preds, target))
    assert result["iou/1"] == 0
    assert result["miou"] == pytest.approx(0.46875)


def test_logits_are_taken_at_their_largest_channel() -> None:
    preds, target = SECOND
    logits = torch.nn.functional.one_hot(preds, 4).movedim(-1, 1).float() * 3 - 1
    assert measured((logits, target)) == pytest.approx(measured(SECOND), nan_ok=True)


def test_a_random_case_equals_sets_of_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    preds, target = (torch.randint(0, 5, (3, 16, 16), generator=generator) for _ in range(2))
    target[0, :4] = 255
    valid = (target != 255).numpy()
    p, t = preds.numpy()[valid], target.numpy()[valid]
    expected = np.mean([((p == c) & (t == c)).sum() / ((p == c) | (t == c)).sum() for c in range(5)])
    assert measured((preds, target), num_classes=5)["miou"] == pytest.approx(expected, rel=1e-6)


def test_reset_starts_anew() -> None:
    metric = SegmentationIoU(4)
    metric.update(*FIRST)
    metric.reset()
    metric.update(*SECOND)
    assert metric.compute()["miou"].item() == pytest.approx(measured(SECOND)["miou"])


def test_classes_have_names_and_as_many_as_there_are() -> None:
    assert "iou/cat" in measured(FIRST, class_names=["ground", "cat", "dog", "cow"])
    with pytest.raises(ValueError, match=r"class_names has 2 names for 4 classes"):
        SegmentationIoU(4, class_names=["ground", "cat"])


def test_the_level_of_a_constant_prediction() -> None:
    """Class 0 has 520 of the 800 pixels, three classes occur: mIoU (520 / 800) / 3, whatever was predicted."""
    metric = SegmentationIoU(4)
    for preds, target in (FIRST, SECOND):
        metric.update(preds=preds, target=target)
    metric.compute()
    constant = SegmentationIoU(4)
    for _, target in (FIRST, SECOND):
        constant.update(preds=torch.zeros_like(target), target=target)
    assert metric.constant_levels["miou"] == pytest.approx(constant.compute()["miou"].item())
    assert metric.constant_levels["miou"] == pytest.approx(520 / 800 / 3)
    assert metric.constant_levels["pixel_accuracy"] == pytest.approx(constant.compute()["pixel_accuracy"].item())
