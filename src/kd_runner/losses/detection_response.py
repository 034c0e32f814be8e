"""Distillation of a query detector whose query i corresponds to query i of the teacher."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DetectionResponse(nn.Module):
    """Distillation of class scores and box codes under shared, frozen heads; no matching is needed. Also for lines.

        loss = sum_q w_q * T^2 * sum_c KL(Bernoulli(t_qc / T) || Bernoulli(s_qc / T)) / sum_q w_q
             + codes_weight * sum_q v_q * sum_i code_weights_i * |s_qi - t_qi| / sum_q v_q

    Logits t, s are those of teacher and student; every class is a sigmoid. The weights keep hundreds of background
    queries, which score a few hundredths each, from outweighing a dozen objects:

    - v_q = p^focus with p the teacher's best score: boxes of background queries are noise;
    - w_q = p^focus with p the larger of the teacher's and the student's best scores, so that false positives of the
      student count as much as objects that it misses.

    No gradient flows through the weights. With focus 2 and background at 0.03, 1800 queries weigh as much as seven
    objects at 0.5; with focus 1, as 108. Repeating all queries does not change the value.

    Args:
        temperature: T > 0; scores in the weights are at temperature 1.
        focus: exponent of the weights; 0 weighs all queries equally.
        codes_weight: weight of the codes against the scores.
        code_weights: weight per number of a flattened code; None for 1.

    Raises:
        ValueError: the temperature is not positive.
    """

    code_weights: Tensor | None

    def __init__(
        self,
        temperature: float = 1.0,
        focus: float = 2.0,
        codes_weight: float = 1.0,
        code_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.temperature, self.focus, self.codes_weight = temperature, focus, codes_weight
        weights = None if code_weights is None else torch.tensor(list(code_weights), dtype=torch.float32)
        self.register_buffer("code_weights", weights, persistent=False)

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, student_codes: Tensor, teacher_codes: Tensor
    ) -> Tensor:
        """Compute the loss.

        Args:
            student_logits: `(..., Q, C)`.
            teacher_logits: `(..., Q, C)`.
            student_codes: `(..., Q, 10)`, or lines `(..., Q, points, 3)`: all axes after Q are one code.
            teacher_codes: likewise.

        Returns:
            Scalar: nats times T^2, plus `codes_weight` times the unit of the codes.

        Raises:
            ValueError: shapes of student and teacher, or of logits and codes, do not fit.
        """
        self._check(student_logits, teacher_logits, student_codes, teacher_codes)
        student, teacher = student_logits.float(), teacher_logits.detach().float()
        teacher_best = teacher.sigmoid().amax(-1)
        either_best = torch.maximum(teacher_best, student.detach().sigmoid().amax(-1))
        scores = _weighted_mean(self._divergence(student, teacher), either_best**self.focus)
        leading = student_logits.ndim - 1
        distance = (student_codes.float() - teacher_codes.detach().float()).abs().flatten(leading)
        if self.code_weights is not None:
            distance = distance * self.code_weights
        return scores + self.codes_weight * _weighted_mean(distance.sum(-1), teacher_best**self.focus)

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """T^2 * binary KL, summed over the classes: (..., Q)."""
        student, teacher = student / self.temperature, teacher / self.temperature
        positive = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
        negative = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
        return self.temperature**2 * (positive + negative).sum(-1)

    def _check(self, student_logits: Tensor, teacher_logits: Tensor, student_codes: Tensor, teacher_codes: Tensor):
        pairs = {"logits": (student_logits, teacher_logits), "codes": (student_codes, teacher_codes)}
        for name, (student, teacher) in pairs.items():
            if student.shape != teacher.shape:
                raise ValueError(f"{name}: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}")
        queries, numbers = student_logits.shape[:-1], student_codes.shape[student_logits.ndim - 1 :].numel()
        if student_codes.shape[: len(queries)] != queries or student_codes.ndim == len(queries):
            raise ValueError(f"logits {tuple(student_logits.shape)} and codes {tuple(student_codes.shape)} do not fit")
        if self.code_weights is not None and len(self.code_weights) != numbers:
            raise ValueError(f"code_weights has {len(self.code_weights)} numbers, a code {numbers}")


def _weighted_mean(value: Tensor, weight: Tensor) -> Tensor:
    return (value * weight).sum() / weight.sum().clamp(min=1e-6)
