"""Each loss of the ROI system against a plain re-derivation, on a batch with padding."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_runner.losses.functional.class_balance import ClassBalance
from kd_runner.losses.functional.edges import boundary
from kd_runner.losses.hierarchical_unet.boundary import BoundaryAwareCE
from kd_runner.losses.hierarchical_unet.branches import BackgroundForegroundCE, TargetNonTargetCE
from kd_runner.losses.hierarchical_unet.consistency import ForegroundConsistency
from kd_runner.losses.hierarchical_unet.contour import ContourBCE
from kd_runner.losses.hierarchical_unet.dice import TargetDice
from kd_runner.losses.hierarchical_unet.distance import EdgeDistanceL1, edge_distance

MASK = torch.tensor([[True, False], [True, True]])
SIZE = (9, 7)


def truth() -> Tensor:
    """(2, 2, 9, 7): the second ROI of the first image is padding."""
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 2, *SIZE))
    target[~MASK] = 255
    return target


def scores(channels: int, rois: int = 3) -> Tensor:
    return torch.randn(rois, channels, *SIZE, generator=torch.Generator().manual_seed(channels))


LOSSES = {
    "bg_fg": (BackgroundForegroundCE(), "logits", 2),
    "target_nontarget": (TargetNonTargetCE(), "logits", 2),
    "ce": (BoundaryAwareCE(1.0), "logits", 3),
    "boundary": (BoundaryAwareCE(2.0), "logits", 3),
    "dice": (TargetDice(), "logits", 3),
    "contour": (ContourBCE(), "contour", 1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_outputs_of_all_rois_give_what_those_that_count_give(name: str) -> None:
    """Padding has no say, whatever the net says there, and gets no gradient."""
    loss, argument, channels = LOSSES[name]
    loss.eval()  # the class weights hold still
    packed = scores(channels)
    every = torch.full((4, channels, *SIZE), 1e6)
    every[MASK.flatten()] = packed
    every.requires_grad_()
    value = loss(**{argument: every}, target=truth(), roi_mask=MASK)
    value.backward()
    assert torch.equal(value, loss(**{argument: packed}, target=truth(), roi_mask=MASK))
    assert (every.grad[1] == 0).all() and every.grad[MASK.flatten()].abs().sum() > 0
    with pytest.raises(ValueError, match=r"2 ROIs in the output; roi_mask has 4, of which 3 count"):
        loss(**{argument: packed[:2]}, target=truth(), roi_mask=MASK)


@pytest.mark.parametrize("name", [*LOSSES, "distance"])
def test_rois_without_labels_have_no_say(name: str) -> None:
    """Of a batch of labeled and unlabeled images the loss is that of the labeled ones; of unlabeled ones, zero."""
    loss, argument, channels = {**LOSSES, "distance": (EdgeDistanceL1(), "distance", 1)}[name]
    loss.eval()

    def value(rows: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        more = {"distance_mask": rows} if name == "distance" else {}
        return loss(**{argument: rows}, **more, target=target, roi_mask=mask)

    rows, target = scores(channels).requires_grad_(), truth()
    target[0] = 255
    both = value(rows, target, MASK)
    both.backward()
    torch.testing.assert_close(both, value(rows[1:], target[1:], MASK[1:]))
    assert (rows.grad[0] == 0).all() and rows.grad[1:].abs().sum() > 0
    none = value(rows, torch.full_like(target, 255), MASK)
    none.backward()
    assert none.item() == 0 and rows.grad.isfinite().all()


def brute_balanced(logits: Tensor, target: Tensor, weight: Tensor) -> float:
    log_p = logits.double().log_softmax(1)
    total, norm = 0.0, 0.0
    for r, i, j in np.ndindex(*target.shape):
        label = int(target[r, i, j])
        if label >= 0:
            total -= float(weight[label] * log_p[r, label, i, j])
            norm += float(weight[label])
    return total / norm


def test_first_branch_balances_background_and_foreground() -> None:
    target = truth()
    loss, rows = BackgroundForegroundCE(1.2), target.flatten(0, 1)[MASK.flatten()]
    n = [int((rows == 0).sum()), int((rows > 0).sum())]
    inverse = [min(3.0, max(0.5, sum(n) / (2 * k))) for k in n]
    weight = torch.tensor([0.9 + 0.1 * inverse[0], 1.2 * (0.9 + 0.1 * inverse[1])])
    expected = brute_balanced(scores(2), (rows > 0).long(), weight)
    assert loss(scores(2), target, MASK).item() == pytest.approx(expected, rel=1e-5)


def test_second_branch_sees_foreground_alone() -> None:
    target, logits = truth(), scores(2).requires_grad_()
    loss, rows = TargetNonTargetCE().eval(), target.flatten(0, 1)[MASK.flatten()]
    value = loss(logits, target, MASK)
    value.backward()
    assert value.item() == pytest.approx(brute_balanced(logits.detach(), rows - 1, torch.ones(2)), rel=1e-5)
    assert (logits.grad.movedim(1, -1)[rows == 0] == 0).all()
    assert loss(logits, torch.zeros_like(target), MASK).item() == 0


def test_class_weights_are_limited_and_hold_still_outside_of_training() -> None:
    balance = ClassBalance(2, momentum=0.0)
    rare = torch.tensor([0] * 99 + [1] + [255] * 50)
    torch.testing.assert_close(balance(rare, 255), torch.tensor([100 / 198, 3.0]))
    torch.testing.assert_close(balance.eval()(1 - rare.clamp(max=1), 255), torch.tensor([100 / 198, 3.0]))
    balance.train()
    torch.testing.assert_close(balance(torch.ones(10), 255), torch.tensor([3.0, 0.5]))


def test_dice_is_the_overlap_of_the_target() -> None:
    target = truth()
    sharp = 40 * torch.nn.functional.one_hot(target.flatten(0, 1)[MASK.flatten()], 3).movedim(-1, 1).float()
    assert TargetDice()(sharp, target, MASK).item() == pytest.approx(0, abs=1e-5)
    even = TargetDice()(torch.zeros(3, 3, *SIZE), target, MASK).item()
    parts = [int((rows == 1).sum()) for rows in target.flatten(0, 1)[MASK.flatten()]]
    expected = [1 - 2 * (n / 3) / (63 / 3 + n) for n in parts]
    assert even == pytest.approx(np.mean(expected), rel=1e-4)


def test_pixels_where_classes_meet_count_twice() -> None:
    target = torch.zeros(1, 1, 6, 6, dtype=torch.long)
    target[..., 3:] = 2
    logits, mask = scores(3)[:1, :, :6, :6], torch.ones(1, 1, dtype=torch.bool)
    weight = torch.ones(6, 6)
    weight[:, 2:4] = 2
    pixels = torch.nn.functional.cross_entropy(logits, target[0], reduction="none")[0]
    expected = (weight * pixels).mean()
    torch.testing.assert_close(BoundaryAwareCE(2.0)(logits, target, mask), expected)
    torch.testing.assert_close(BoundaryAwareCE(1.0)(logits, target, mask), pixels.mean())


@pytest.mark.parametrize("radius", [1, 2])
def test_edges_are_where_a_window_holds_both(radius: int) -> None:
    mask = (torch.rand(1, 1, 12, 11, generator=torch.Generator().manual_seed(0)) > 0.9).float()
    result = boundary(mask, radius)[0, 0]
    for i, j in np.ndindex(12, 11):
        window = mask[0, 0, max(0, i - radius) : i + radius + 1, max(0, j - radius) : j + radius + 1]
        assert bool(result[i, j]) == (0 < window.mean() < 1)


def test_contour_takes_logits_and_widens_with_the_resolution() -> None:
    """Perfect logits cost nothing (after a sigmoid they could not), and the edge's share stays."""
    shares = []
    for factor in (1, 2, 4):
        target = torch.zeros(1, 1, 64 * factor, 48 * factor, dtype=torch.long)
        target[..., 16 * factor : 40 * factor, 12 * factor : 30 * factor] = 1
        edge = boundary((target[0] == 1)[:, None].float(), factor).float()
        mask = torch.ones(1, 1, dtype=torch.bool)
        assert ContourBCE()(40 * (2 * edge - 1), target, mask).item() == pytest.approx(0, abs=1e-6)
        shares.append(edge.mean().item())
    assert shares == pytest.approx([shares[0]] * 3, rel=0.05)


def test_distance_is_the_euclidean_one() -> None:
    mask = torch.zeros(12, 10, dtype=torch.bool)
    mask[3:9, 2:8] = mask[1, 9] = True
    result = edge_distance(mask[None], width=3.0)[0]
    cells = list(np.ndindex(12, 10))
    for i, j in cells:
        nearest = min(math.hypot(i - k, j - m) for k, m in cells if mask[k, m] != mask[i, j])
        signed = (nearest - 0.5) * (1 if mask[i, j] else -1)
        assert result[i, j].item() == pytest.approx(min(1, max(0, 0.5 + signed / 6)), abs=1e-6)
    assert ((result > 0.5) == mask).all()
    assert edge_distance(torch.ones(1, 3, 3, dtype=torch.bool), 3.0).unique().tolist() == [1.0]


def test_distance_trains_the_map_and_the_threshold() -> None:
    target, perfect = truth(), None
    perfect = edge_distance((target == 1).flatten(0, 1)[MASK.flatten()], 5.0)[:, None]
    threshold = torch.tensor(0.3, requires_grad=True)
    loss = EdgeDistanceL1(mask_weight=0.0)
    assert loss(perfect, 10 * (perfect - threshold), target, MASK).item() == 0
    assert loss(perfect + 0.1, 10 * (perfect - threshold), target, MASK).item() == pytest.approx(0.1, rel=1e-5)
    EdgeDistanceL1()(perfect, 10 * (perfect - threshold), target, MASK).backward()
    assert threshold.grad < 0  # up, towards 0.5


def test_consistency_is_none_where_both_say_the_same() -> None:
    p, logits = 0.7, torch.log(torch.tensor([0.3, 0.5, 0.2])).view(1, 3, 1, 1)
    agreed = torch.log(torch.tensor([1 - p, p])).view(1, 2, 1, 1)
    assert ForegroundConsistency()(agreed, logits).item() == pytest.approx(0, abs=1e-12)
    even = torch.zeros(1, 2, 1, 1)
    assert ForegroundConsistency()(even, logits).item() == pytest.approx(0.04, rel=1e-5)


def test_masks_of_another_size_are_named() -> None:
    with pytest.raises(ValueError, match="the net's mask_size"):
        TargetDice()(torch.zeros(3, 3, 4, 4), truth(), MASK)
