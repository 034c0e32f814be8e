"""Label distillation: confident teacher boxes as additional labels of a detection loss."""

from typing import Any

import torch
from torch import Tensor, nn


def with_teacher_boxes(
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_mask: Tensor,
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    threshold: float = 0.6,
    radius: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Append the teacher's boxes to the ground truth.

    A teacher box is used if its score is above `threshold` and no true box, and no teacher box of higher score, of the
    same class has its center within `radius` on the ground plane: that would be the same object twice.

    Args:
        gt_boxes: (B, M, D), x and y first, in meters.
        gt_labels: (B, M) int64.
        gt_mask: (B, M) bool, False for padding.
        boxes: teacher boxes (B, P, D) in the same convention.
        scores: (B, P) in 0..1.
        labels: (B, P) int64.
        threshold: lowest score.
        radius: meters.

    Returns:
        Boxes (B, M + P, D), labels (B, M + P), mask (B, M + P).

    Raises:
        ValueError: lengths of the boxes differ.
    """
    if gt_boxes.shape[-1] != boxes.shape[-1]:
        raise ValueError(f"gt_boxes has {gt_boxes.shape[-1]} numbers per box, the teacher's boxes {boxes.shape[-1]}")
    boxes, scores, labels = (tensor.detach() for tensor in (boxes, scores, labels))
    confident = scores > threshold
    order = torch.arange(boxes.shape[1], device=boxes.device)
    outranked = (scores[:, None] > scores[..., None]) | (
        (scores[:, None] == scores[..., None]) & (order < order[:, None])
    )
    true = _same_object(boxes, labels, gt_boxes, gt_labels, radius) & gt_mask[:, None]
    duplicate = _same_object(boxes, labels, boxes, labels, radius) & outranked
    used = confident & ~true.any(2) & ~duplicate.any(2)
    return (
        torch.cat([gt_boxes, boxes.to(gt_boxes.dtype)], dim=1),
        torch.cat([gt_labels, labels.to(gt_labels.dtype)], dim=1),
        torch.cat([gt_mask, used], dim=1),
    )


def _same_object(boxes: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, radius: float) -> Tensor:
    """Whether two boxes have the same class and centers within the radius: (B, P, M) bool."""
    distance = torch.linalg.vector_norm(boxes[:, :, None, :2] - others[:, None, :, :2], dim=-1)
    return (labels[:, :, None] == other_labels[:, None]) & (distance <= radius)


class LabelDistillation(nn.Module):
    """A detection loss on the teacher's boxes alone; it stands beside the same loss on ground truth.

    Student predictions are matched to true boxes and teacher boxes together, and those matched to a teacher box count.
    So the ground truth is in the total once, and a batch without teacher boxes gives 0. The loss beside it regards
    objects that only the teacher sees as background: of such an object the student learns a score in between.

    The published method has one loss on true and teacher boxes. The sum of both losses differs from it by the
    normalization and by that background.

    Args:
        loss: module called with gt_boxes, gt_labels, gt_mask, counted and the student's outputs; `counted` (B, M) bool
            names the boxes that add to the loss.
        threshold: lowest score of a teacher box, 0..1.
        radius: boxes of the same class within this distance are the same object; meters.

    Raises:
        ValueError: threshold is outside of 0..1.

    Source:
        After Yang et al., "Towards Efficient 3D Object Detection with Knowledge Distillation" (SparseKD), NeurIPS 2022.
    """

    def __init__(self, loss: nn.Module, threshold: float = 0.6, radius: float = 1.0):
        super().__init__()
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold={threshold}: must be a score, 0 <= threshold < 1")
        self.loss, self.threshold, self.radius = loss, threshold, radius

    def forward(
        self,
        gt_boxes: Tensor,
        gt_labels: Tensor,
        gt_mask: Tensor,
        teacher_boxes: Tensor,
        teacher_scores: Tensor,
        teacher_labels: Tensor,
        **outputs: Any,
    ) -> Tensor:
        """Compute the wrapped loss on teacher boxes that are no true box.

        Args:
            gt_boxes: see `with_teacher_boxes`.
            gt_labels: see `with_teacher_boxes`.
            gt_mask: see `with_teacher_boxes`.
            teacher_boxes: see `with_teacher_boxes`.
            teacher_scores: see `with_teacher_boxes`.
            teacher_labels: see `with_teacher_boxes`.
            outputs: passed to the loss unchanged.

        Returns:
            Scalar; 0 if there is no such box.
        """
        truth = gt_boxes, gt_labels, gt_mask
        teacher = teacher_boxes, teacher_scores, teacher_labels
        boxes, labels, mask = with_teacher_boxes(*truth, *teacher, threshold=self.threshold, radius=self.radius)
        counted = mask.clone()
        counted[:, : gt_mask.shape[1]] = False
        return self.loss(gt_boxes=boxes, gt_labels=labels, gt_mask=mask, counted=counted, **outputs)
