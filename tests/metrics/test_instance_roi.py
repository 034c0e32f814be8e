"""Counts against plain loops, shards against the whole, and COCO's AP in cases with a known answer."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_runner.metrics.instance_roi import InstanceROI
from kd_runner.metrics.mask_ap import MaskAP, _paste, _pixels

MASK = torch.tensor([[True, False, True], [True, True, True]])


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Two images of three ROIs, one of them padding; predictions that are right at most pixels."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (2, 3, 8, 6), generator=generator)
    target[:, :, 2:6, 1:5] = 1
    logits = 4.0 * torch.nn.functional.one_hot(target.flatten(0, 1), 3).movedim(-1, 1)
    noise = torch.linspace(1, 4, 6)[:, None, None, None]  # from a good mask to a bad one
    logits = logits + noise * torch.randn(logits.shape, generator=generator)
    target[~MASK] = 255
    return {"logits": logits, "target": target, "roi_mask": MASK}


def test_numbers_are_those_of_plain_loops() -> None:
    given, metric = batch(), InstanceROI((0.5, 0.7))
    metric.update(**given)
    values = {name: value.item() for name, value in metric.compute().items()}
    keep = MASK.flatten()
    logits = given["logits"][keep].numpy()
    preds, truth = logits.argmax(1), given["target"].flatten(0, 1)[keep].numpy()
    ious = [((p == 1) & (t == 1)).sum() / ((p == 1) | (t == 1)).sum() for p, t in zip(preds, truth)]
    classes = [((preds == c) & (truth == c)).sum() / ((preds == c) | (truth == c)).sum() for c in range(3)]
    person = truth > 0
    right = np.where(logits[:, 1] >= logits[:, 2], 1, 2) == truth
    assert values["target_iou_mean"] == pytest.approx(np.mean(ious))
    assert values["detection_50"] == pytest.approx(np.mean(np.array(ious) > 0.5))
    assert values["detection_70"] == pytest.approx(np.mean(np.array(ious) > 0.7))
    assert [values[f"iou/{c}"] for c in ("background", "target", "non_target")] == pytest.approx(classes)
    assert values["miou"] == pytest.approx(np.mean(classes))
    assert values["instance_separation"] == pytest.approx(right[person].mean())
    assert 0 < values["detection_70"] < 1


@pytest.mark.parametrize("metric", [InstanceROI(), MaskAP()], ids=["instance_roi", "mask_ap"])
def test_outputs_of_all_rois_and_of_those_that_count_are_one(metric: InstanceROI | MaskAP) -> None:
    given = batch()
    more = {"rois": torch.tensor([0.1, 0.2, 0.7, 0.9]).expand(2, 3, 4), "image": torch.zeros(2, 3, 32, 32)}
    more["index"] = torch.arange(2)
    more = more if isinstance(metric, MaskAP) else {}
    results = []
    for logits in (given["logits"], given["logits"][MASK.flatten()]):
        one = copy.deepcopy(metric)
        one.update(**{**given, "logits": logits}, **more)
        results.append(one.compute())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_shards_add_up() -> None:
    """What DDP does: states are summed."""
    whole, parts = InstanceROI(), [InstanceROI(), InstanceROI()]
    for seed in range(4):
        whole.update(**batch(seed))
        parts[seed % 2].update(**batch(seed))
    for name, reduce in whole._reductions.items():
        setattr(parts[0], name, reduce(torch.stack([getattr(part, name) for part in parts])))
    assert {k: v.item() for k, v in parts[0].compute().items()} == {k: v.item() for k, v in whole.compute().items()}


def boxes() -> dict[str, Tensor]:
    rois = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0, 0, 1, 1], [0.5, 0.25, 1.0, 1.0]]]).repeat(2, 1, 1)
    rois[1, 1] = torch.tensor([0.25, 0.5, 0.75, 1.0])
    return {"rois": rois, "image": torch.zeros(2, 3, 32, 24), "index": torch.tensor([7, 3])}


def sure(target: Tensor) -> Tensor:
    return 20.0 * torch.nn.functional.one_hot(target.flatten(0, 1) % 255, 3).movedim(-1, 1)


def halves(fraction: float) -> Tensor:
    """The target fills the upper part of each ROI."""
    target = torch.zeros(2, 3, 8, 6, dtype=torch.long)
    target[:, :, : int(8 * fraction)] = 1
    target[~MASK] = 255
    return target


def test_perfect_masks_reach_one() -> None:
    metric = MaskAP()
    metric.update(sure(halves(0.5)), halves(0.5), roi_mask=MASK, **boxes())
    assert {name: round(value.item(), 4) for name, value in metric.compute().items()} == {
        "mask_ap": 1.0,
        "mask_ap/50": 1.0,
        "mask_ap/75": 1.0,
    }


def test_masks_of_a_known_overlap_count_up_to_it() -> None:
    """A quarter less in each mask is an IoU of 3/4 before the blur of resizing: right at 0.50, wrong at 0.95."""
    metric = MaskAP()
    metric.update(sure(halves(0.75)), halves(1.0), roi_mask=MASK, **boxes())
    values = metric.compute()
    assert values["mask_ap/50"] == pytest.approx(1.0)
    assert 0.4 < values["mask_ap"].item() < 0.65


def test_a_mask_that_is_missing_costs_recall() -> None:
    logits = sure(halves(0.5))
    logits[0] = torch.tensor([20.0, 0.0, 0.0])[:, None, None]  # one of the five ROIs says nothing but background
    metric = MaskAP()
    metric.update(logits, halves(0.5), roi_mask=MASK, **boxes())
    assert metric.compute()["mask_ap/50"].item() == pytest.approx(0.8, abs=0.01)


def test_a_mask_lies_where_its_box_is() -> None:
    box = _pixels([0.25, 0.5, 0.75, 0.75], height=32, width=24)
    target = torch.ones(1, 8, 6, dtype=torch.long)
    ((mask, truth, score),) = _paste(sure(target[None]), target, [box], 32, 24)
    expected = torch.zeros(32, 24, dtype=torch.bool)
    expected[16:24, 6:18] = True
    assert torch.equal(mask, expected) and torch.equal(truth, expected) and score == pytest.approx(1.0)
    assert _pixels([1.0, 1.0, 1.0, 1.0], 32, 24) == (31, 32, 23, 24)


def test_the_level_of_a_constant_prediction() -> None:
    """Every pixel of every ROI as target."""
    given, metric, constant = batch(), InstanceROI(), InstanceROI()
    metric.update(**given)
    metric.compute()
    everywhere = torch.zeros_like(given["logits"])
    everywhere[:, 1] = 1
    constant.update(**{**given, "logits": everywhere})
    assert metric.constant_levels["target_iou_mean"] == pytest.approx(constant.compute()["target_iou_mean"].item())


def test_labels_go_to_the_pixels_whose_centers_they_hold() -> None:
    """Three cells on four pixels: centers at 0.375, 1.125, 1.875 and 2.625 cells."""
    target = torch.tensor([[[1, 0, 1]]])
    ((_, truth, _),) = _paste(sure(target[None]), target, [(0, 1, 1, 5)], 2, 6)
    assert truth.int().tolist() == [[0, 1, 0, 0, 1, 0], [0] * 6]
