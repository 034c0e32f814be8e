"""Response distillation of boxes where each net asks at places of its own (after SparseKD: Yang et al. 2022, "Towards
Efficient 3D Object Detection with Knowledge Distillation", NeurIPS, which has one box a cell instead).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BoxResponse(nn.Module):
    """Draws a student's query to the teacher's query for the same object.

    Two queries are a pair if they have one class, are each other's nearest of that class, by their predicted centers,
    no further apart than `radius`, and the teacher's score is above `threshold`. So every teacher's box has one student
    at most: a second one, drawn to it as well, would be a duplicate, and a detector without suppression makes none.
    A pair counts as much as the teacher's score. Value: |difference| of the codes, weighted and summed over the code,
    times `box_weight`, plus binary KL(teacher || student) summed over classes times `class_weight`; mean over pairs.

    Args:
        radius: in units of the codes' first two numbers, cells of a map that both nets must share.
        threshold: of the teacher's score.
        box_weight, class_weight: shares of both parts.
        code_weights: of each number of a code.
    """

    code_weights: Tensor

    def __init__(
        self,
        radius: float = 2.0,
        threshold: float = 0.1,
        box_weight: float = 0.25,
        class_weight: float = 1.0,
        code_weights: Sequence[float] = (1, 1, 1, 1, 1, 1, 1, 1, 0.2, 0.2),
    ):
        super().__init__()
        if radius <= 0:
            raise ValueError(f"radius must be above 0, not {radius}")
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
        """Codes (L, B, P, 10), x and y in cells first; class logits (L, B, P, C); labels (B, P) int64; scores (B, P) of
        the teacher. The last decoder layer counts. Numbers of layers and queries may differ between the nets.

        Returns a scalar, mean over pairs weighted by score; 0 where there is none.

        Raises:
            ValueError: codes or class counts do not fit.
        """
        ours, theirs = student_codes[-1].float(), teacher_codes[-1].detach().float()
        logits, soft = student_logits[-1].float(), teacher_logits[-1].detach().float()
        if not ours.shape[-1] == theirs.shape[-1] == len(self.code_weights):
            lengths = ours.shape[-1], theirs.shape[-1], len(self.code_weights)
            raise ValueError("codes of {} (student), {} (teacher) and code_weights of {} numbers".format(*lengths))
        if logits.shape[-1] != soft.shape[-1]:
            raise ValueError(f"class-count mismatch: student has {logits.shape[-1]}, teacher {soft.shape[-1]}")
        pair, partner = self._pairs(ours.detach(), theirs, student_labels, teacher_labels, teacher_scores)
        weight = (teacher_scores.gather(1, partner) * pair).detach().float()
        boxes = (ours - _rows(theirs, partner)).abs() @ self.code_weights
        soft = _rows(soft, partner)
        # Cross entropy less the teacher's own entropy: 0 where both agree.
        cross, own = (
            F.binary_cross_entropy_with_logits(x, soft.sigmoid(), reduction="none").sum(-1) for x in (logits, soft)
        )
        value = self.box_weight * boxes + self.class_weight * (cross - own)
        return (value * weight).sum() / weight.sum().clamp(min=1e-6)

    def _pairs(
        self, ours: Tensor, theirs: Tensor, our_labels: Tensor, their_labels: Tensor, scores: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Whether a student's query (B, P) has a partner, and which."""
        distance = torch.cdist(ours[..., :2], theirs[..., :2], compute_mode="donot_use_mm_for_euclid_dist")
        fits = (our_labels[:, :, None] == their_labels[:, None]) & (scores > self.threshold)[:, None]
        nearest, partner = distance.masked_fill(~(fits & (distance <= self.radius)), torch.inf).min(2)
        back = distance.masked_fill(~fits, torch.inf).argmin(1)
        mutual = back.gather(1, partner) == torch.arange(ours.shape[1], device=ours.device)
        return nearest.isfinite() & mutual, partner


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    """values (B, P, D) at rows (B, Q): (B, Q, D)."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))
