"""Distillation of the predictions of a set: queries of a DETR, or masks of a Mask2Former, matched one to one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.hungarian import match


class QueryResponse(nn.Module):
    """Classes and boxes of each teacher query, taught to the student query that is matched to it.

    Queries have no order: query 3 of the teacher may be query 17 of the student, and their numbers may differ. Teacher
    queries above `min_score` are matched to student queries at the least cost (Hungarian), cost and loss alike:

        loss = sum over pairs of w_t (D(teacher classes, student classes) + box_weight |box_t - box_s|_1) / sum of w_t

    D is the KL divergence of the class distributions; with `sigmoid` the sum of those of each class's own yes or no.
    w_t is the teacher's score, its largest class probability other than "no object".

    Args:
        box_weight: of the L1 distance of boxes (center, size; all in 0..1).
        min_score: teacher queries below it are left out.
        sigmoid: each class is scored on its own (RT-DETR, D-FINE); else by a softmax whose last class is "no object"
            (DETR, Mask2Former).

    Raises:
        ValueError: a weight is negative, or `min_score` not in 0..1.

    Source:
        Chang et al., "DETRDistill: A Universal Knowledge Distillation Framework for DETR-families", ICCV 2023,
        section 3.2.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 0, 0], [0, 4, 0]]])
        >>> QueryResponse()(logits.flip(1), logits).item()
        0.0
    """

    def __init__(self, box_weight: float = 5.0, min_score: float = 0.1, sigmoid: bool = False):
        super().__init__()
        if box_weight < 0 or not 0 <= min_score <= 1:
            raise ValueError(f"box_weight={box_weight} must not be negative, min_score={min_score} in 0..1")
        self.box_weight, self.min_score, self.sigmoid = box_weight, min_score, sigmoid

    def forward(
        self, student: Tensor, teacher: Tensor, student_boxes: Tensor | None = None, teacher_boxes: Tensor | None = None
    ) -> Tensor:
        """Compute the loss.

        Args:
            student: class logits (B, Qs, C).
            teacher: class logits (B, Qt, C).
            student_boxes: (B, Qs, 4) in 0..1, or None with the teacher's.
            teacher_boxes: (B, Qt, 4).

        Returns:
            Scalar; 0 where no teacher query is above `min_score`.

        Raises:
            ValueError: numbers of classes differ, or boxes of one net alone.
        """
        if student.shape[-1] != teacher.shape[-1]:
            raise ValueError(f"class-count mismatch: student has {student.shape[-1]}, teacher {teacher.shape[-1]}")
        if (student_boxes is None) != (teacher_boxes is None):
            raise ValueError("boxes of both nets, or of none")
        student, teacher = student.float(), teacher.detach().float()
        scores = teacher.sigmoid().amax(-1) if self.sigmoid else teacher.softmax(-1)[..., :-1].amax(-1)
        distance = self._distance(student, teacher)
        if student_boxes is not None and teacher_boxes is not None:
            boxes = torch.cdist(student_boxes.float(), teacher_boxes.detach().float(), p=1)
            distance = distance + self.box_weight * boxes
        pairs = match(distance[None], scores >= self.min_score)
        weights = scores[pairs.sample, pairs.target]
        values = distance[pairs.sample, pairs.query, pairs.target]
        return (weights * values).sum() / weights.sum().clamp(min=1e-6)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Divergence (B, Qs, Qt) of every pair of queries."""
        if self.sigmoid:
            probability = teacher.sigmoid()
            own = F.binary_cross_entropy(probability, probability, reduction="none").sum(-1)
            yes, no = F.logsigmoid(student), F.logsigmoid(-student)
            cross = -(yes @ probability.mT + no @ (1 - probability).mT)
            return cross - own[:, None]
        probability = teacher.softmax(-1)
        own = (probability * teacher.log_softmax(-1)).sum(-1)
        return own[:, None] - student.log_softmax(-1) @ probability.mT
