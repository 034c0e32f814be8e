"""The teacher's boxes as further labels (label distillation of SparseKD: Yang et al. 2022, "Towards Efficient 3D Object
Detection with Knowledge Distillation", NeurIPS).
"""

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
    """Ground truth, then the teacher's boxes: (B, M + P, D) boxes, (B, M + P) labels and mask.

    A teacher's box counts if its score is above `threshold`, and if no true box and no surer one of the teacher's, of
    the same class, is centerd within `radius` of it on the ground: that would be the same object twice.

    Args:
        gt_boxes: (B, M, D), x and y first; gt_labels (B, M) int64; gt_mask (B, M) bool, False where there is none.
        boxes: (B, P, D) in the same convention; scores (B, P), labels (B, P) int64.
        threshold: score from which the authors take a box for a label.
        radius: meters.

    Raises:
        ValueError: boxes of unlike length.
    """
    if gt_boxes.shape[-1] != boxes.shape[-1]:
        raise ValueError(f"true boxes have {gt_boxes.shape[-1]} numbers, the teacher's {boxes.shape[-1]}")
    boxes, scores, labels = (tensor.detach() for tensor in (boxes, scores, labels))
    sure = scores > threshold
    order = torch.arange(boxes.shape[1], device=boxes.device)
    surer = (scores[:, None] > scores[..., None]) | ((scores[:, None] == scores[..., None]) & (order < order[:, None]))
    true = _same_object(boxes, labels, gt_boxes, gt_labels, radius) & gt_mask[:, None]
    again = _same_object(boxes, labels, boxes, labels, radius) & surer
    counts = sure & ~true.any(2) & ~again.any(2)
    return (
        torch.cat([gt_boxes, boxes.to(gt_boxes.dtype)], dim=1),
        torch.cat([gt_labels, labels.to(gt_labels.dtype)], dim=1),
        torch.cat([gt_mask, counts], dim=1),
    )


def _same_object(boxes: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, radius: float) -> Tensor:
    """(B, P, M): one class, and centers within the radius."""
    distance = torch.linalg.vector_norm(boxes[:, :, None, :2] - others[:, None, :, :2], dim=-1)
    return (labels[:, :, None] == other_labels[:, None]) & (distance <= radius)


class LabelDistillation(nn.Module):
    """A detection loss on the true and the teacher's boxes, in place of the same loss on the true ones alone.

    Args:
        loss: takes gt_boxes, gt_labels, gt_mask and the student's outputs.
        threshold: score above which a teacher's box is a label.
        radius: meters within which a box of the same class is the same object.
    """

    def __init__(self, loss: nn.Module, threshold: float = 0.6, radius: float = 1.0):
        super().__init__()
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold={threshold} is no score: 0 <= threshold < 1")
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
        """As `with_teacher_boxes` describes them; `outputs` go to the loss as they are. Returns the loss's value."""
        truth = gt_boxes, gt_labels, gt_mask
        teacher = teacher_boxes, teacher_scores, teacher_labels
        boxes, labels, mask = with_teacher_boxes(*truth, *teacher, threshold=self.threshold, radius=self.radius)
        return self.loss(gt_boxes=boxes, gt_labels=labels, gt_mask=mask, **outputs)
