"""Response distillation of query-based detectors, whose queries stand at different positions in student and teacher."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BoxResponse(nn.Module):
    """Distillation of boxes and classes between matched student and teacher queries.

    Two queries match if they have the same class, are mutual nearest neighbors of that class by predicted center, are
    at most `radius` apart, and the teacher's score is above `threshold`. So a teacher query has at most one student
    query: a second one would become a duplicate detection, and these detectors have no NMS. With s the teacher's score,

        loss = sum over pairs of s * (box_weight * sum_i w_i |c_i - t_i| + class_weight * KL) / sum over pairs of s

    where c, t are the box codes of student and teacher, w the code weights, and KL is T^2 times the binary
    KL(teacher || student) of the class probabilities sigmoid(logit / T), summed over classes.

    Args:
        radius: largest distance of a pair, in units of the codes' first two numbers (cells of a map common to both).
        threshold: lowest teacher score, 0..1.
        box_weight: weight of the distance of the codes.
        class_weight: weight of the divergence of the classes.
        code_weights: weight of each number of a code.
        temperature: T > 0 of the class logits; 1 compares the probabilities as they are.

    Raises:
        ValueError: radius or temperature is not above 0.

    Source:
        After Yang et al., "Towards Efficient 3D Object Detection with Knowledge Distillation" (SparseKD), NeurIPS
        2022, which has one box per cell instead of queries.
    """

    code_weights: Tensor

    def __init__(
        self,
        radius: float = 2.0,
        threshold: float = 0.1,
        box_weight: float = 0.25,
        class_weight: float = 1.0,
        code_weights: Sequence[float] = (1, 1, 1, 1, 1, 1, 1, 1, 0.2, 0.2),
        temperature: float = 1.0,
    ):
        super().__init__()
        if radius <= 0:
            raise ValueError(f"radius must be above 0, not {radius}")
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.temperature = temperature
        self.radius, self.threshold = radius, threshold
        self.box_weight, self.class_weight = box_weight, class_weight
        self.register_buffer("code_weights", torch.tensor(list(code_weights), dtype=torch.float32), persistent=False)

    def forward(
        self,
        student_codes: Tensor,
        student_logits: Tensor,
        student_labels: Tensor,
        teacher_codes: Tensor,
        teacher_logits: Tensor,
        teacher_labels: Tensor,
        teacher_scores: Tensor,
    ) -> Tensor:
        """Compute the loss on the outputs of the last decoder layer.

        Args:
            student_codes: box codes (L, B, P, 10), x and y in cells first. The numbers of layers L and
                queries P may differ between the nets.
            teacher_codes: as `student_codes`.
            student_logits: class logits (L, B, P, C).
            teacher_logits: class logits (L, B, P, C).
            student_labels: (B, P) int64.
            teacher_labels: (B, P) int64.
            teacher_scores: (B, P) in 0..1.

        Returns:
            Scalar, mean over pairs weighted by teacher score; 0 if there is no pair.

        Raises:
            ValueError: lengths of codes or numbers of classes differ.
        """
        student, teacher = student_codes[-1].float(), teacher_codes[-1].detach().float()
        logits, soft = student_logits[-1].float(), teacher_logits[-1].detach().float()
        if not student.shape[-1] == teacher.shape[-1] == len(self.code_weights):
            lengths = student.shape[-1], teacher.shape[-1], len(self.code_weights)
            raise ValueError("codes of {} (student), {} (teacher) and code_weights of {} numbers".format(*lengths))
        if logits.shape[-1] != soft.shape[-1]:
            raise ValueError(f"class-count mismatch: student has {logits.shape[-1]}, teacher {soft.shape[-1]}")
        pair, partner = self._pairs(student.detach(), teacher, student_labels, teacher_labels, teacher_scores)
        weight = (teacher_scores.gather(1, partner) * pair).detach().float()
        boxes = (student - _rows(teacher, partner)).abs() @ self.code_weights
        logits, soft = logits / self.temperature, _rows(soft, partner) / self.temperature
        # Cross entropy less the teacher's own entropy: 0 where both agree.
        cross, own = (
            F.binary_cross_entropy_with_logits(x, soft.sigmoid(), reduction="none").sum(-1) for x in (logits, soft)
        )
        value = self.box_weight * boxes + self.class_weight * self.temperature**2 * (cross - own)
        return (value * weight).sum() / weight.sum().clamp(min=1e-6)

    def _pairs(
        self, student: Tensor, teacher: Tensor, student_labels: Tensor, teacher_labels: Tensor, scores: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Whether each student query has a partner (B, P) bool, and the teacher query that it is (B, P) int64."""
        distance = torch.cdist(student[..., :2], teacher[..., :2], compute_mode="donot_use_mm_for_euclid_dist")
        fits = (student_labels[:, :, None] == teacher_labels[:, None]) & (scores > self.threshold)[:, None]
        nearest, partner = distance.masked_fill(~(fits & (distance <= self.radius)), torch.inf).min(2)
        back = distance.masked_fill(~fits, torch.inf).argmin(1)
        mutual = back.gather(1, partner) == torch.arange(student.shape[1], device=student.device)
        return nearest.isfinite() & mutual, partner


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    """Select rows (B, Q) of values (B, P, D); returns (B, Q, D)."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))
