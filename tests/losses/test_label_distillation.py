import pytest
import torch
from torch import Tensor, nn

from kd_runner.losses.label_distillation import LabelDistillation, with_teacher_boxes
from kd_runner.losses.transfusion import TransFusionLoss


def boxes(*centers: tuple[float, float]) -> Tensor:
    """Boxes (1, n, 9) at these centers."""
    return torch.tensor([[[x, y, 0, 4, 2, 1.5, 0, 0, 0] for x, y in centers]])


TRUTH = {
    "gt_boxes": boxes((0, 0), (10, 0), (0, 0)),
    "gt_labels": torch.tensor([[0, 1, 0]]),
    "gt_mask": torch.tensor([[True, True, False]]),
}
# Above a true box of its class; above one of another class; too unsure; new; the same again, less sure; further off.
TEACHER = {
    "boxes": boxes((0.5, 0.5), (10, 0), (20, 0), (30, 0), (30.5, 0), (32, 0)),
    "scores": torch.tensor([[0.9, 0.8, 0.6, 0.7, 0.65, 0.61]]),
    "labels": torch.tensor([[0, 0, 0, 2, 2, 2]]),
}
ADDED = [False, True, False, True, False, True]


def test_sure_boxes_of_objects_that_have_none_are_added() -> None:
    joined, labels, mask = with_teacher_boxes(**TRUTH, **TEACHER)
    assert torch.equal(joined, torch.cat([TRUTH["gt_boxes"], TEACHER["boxes"]], dim=1))
    assert torch.equal(labels, torch.cat([TRUTH["gt_labels"], TEACHER["labels"]], dim=1))
    assert mask.tolist() == [[True, True, False, *ADDED]]


def test_padding_hides_no_box_and_equal_scores_leave_one() -> None:
    blank = TRUTH | {"gt_mask": torch.zeros(1, 3, dtype=torch.bool)}
    assert with_teacher_boxes(**blank, **TEACHER)[2].tolist() == [[False] * 3 + [True, True, False, True, False, True]]
    twins = TEACHER | {"scores": torch.full((1, 6), 0.9)}
    assert with_teacher_boxes(**TRUTH, **twins)[2].tolist()[0][3:] == [False, True, True, True, False, True]


def test_without_any_sure_box_the_labels_are_the_true_ones() -> None:
    mask = with_teacher_boxes(**TRUTH, **TEACHER, threshold=0.95)[2]
    assert mask.tolist() == [[True, True, False] + [False] * 6]


class SumCounted(nn.Module):
    """Sums of what it is called with, so that a test can read off which boxes those were."""

    def forward(self, gt_boxes: Tensor, gt_labels: Tensor, gt_mask: Tensor, counted: Tensor, heatmap: Tensor) -> Tensor:
        assert not (counted & ~gt_mask).any()
        return heatmap * gt_mask.sum() + gt_boxes[counted][:, 0].sum() + 100 * gt_labels[counted].sum()


def test_all_boxes_are_matched_and_those_of_the_teacher_count() -> None:
    teacher = {f"teacher_{name}": tensor.requires_grad_(tensor.is_floating_point()) for name, tensor in TEACHER.items()}
    heatmap = torch.tensor(1000.0, requires_grad=True)
    value = LabelDistillation(SumCounted(), threshold=0.6)(**TRUTH, **teacher, heatmap=heatmap)
    assert value.item() == 1000 * 5 + (10 + 30 + 32) + 100 * (0 + 2 + 2)
    value.backward()
    assert heatmap.grad == 5 and teacher["teacher_boxes"].grad is None


def norms(threshold: float, truth: dict[str, Tensor] = TRUTH) -> tuple[float, dict[str, float]]:
    """The value beside TransFusion's loss, and norms of the gradients at a student's outputs."""
    noise = torch.Generator().manual_seed(0)
    outputs = {
        "heatmap": torch.randn(1, 3, 100, 100, generator=noise).requires_grad_(),
        "codes": torch.randn(1, 1, 8, 10, generator=noise).requires_grad_(),
        "cls_logits": torch.randn(1, 1, 8, 3, generator=noise).requires_grad_(),
    }
    grid = {"voxel_size": (0.1, 0.1, 0.2), "point_cloud_range": (-40.0, -40.0, -3.0, 40.0, 40.0, 3.0)}
    loss = LabelDistillation(TransFusionLoss(**grid), threshold=threshold)
    value = loss(**truth, **{f"teacher_{name}": tensor.detach() for name, tensor in TEACHER.items()}, **outputs)
    value.backward()
    return value.item(), {name: float(tensor.grad.norm()) for name, tensor in outputs.items()}


def test_without_teacher_boxes_nothing_is_learned() -> None:
    """The true boxes count in the loss beside it, and only there."""
    value, gradients = norms(threshold=0.95)
    assert value == 0 and set(gradients.values()) == {0.0}


def test_teacher_boxes_have_a_gradient_that_the_labels_do_not_change() -> None:
    value, gradients = norms(threshold=0.6)
    assert value > 0 and min(gradients.values()) > 0
    far = {**TRUTH, "gt_boxes": boxes((-30, -30), (-35, 20), (0, 0)), "gt_labels": torch.tensor([[1, 1, 0]])}
    hidden = {**far, "gt_mask": torch.zeros(1, 3, dtype=torch.bool)}
    torch.testing.assert_close(norms(0.6, far)[1]["heatmap"], norms(0.6, hidden)[1]["heatmap"])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="gt_boxes has 9 numbers per box, the teacher's boxes 7"):
        with_teacher_boxes(**TRUTH, **TEACHER | {"boxes": TEACHER["boxes"][..., :7]})
    with pytest.raises(ValueError, match="must be a score"):
        LabelDistillation(SumCounted(), threshold=1.0)
