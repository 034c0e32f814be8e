"""Distillation of what a query detector answers, where query i of one net is query i of the other."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DetectionResponse(nn.Module):
    """Class scores and box codes of a student whose heads and queries are the teacher's own, so that no matching is
    needed: backbone distillation under frozen heads. Likewise for lines.

    Every class is a sigmoid of its own: T^2 * binary KL(teacher || student) at temperature T, summed over classes. To
    that comes |student - teacher|, summed over the numbers of a code as task losses do. Both are weighted means over
    layers, images and queries. Hundreds of background queries score a few hundredths each and would outweigh a dozen
    objects, hence the weights:

    - codes: p^focus, p the teacher's best score: what it boxes where it sees nothing is noise;
    - scores: p^focus, p the better of the teacher's and the student's best scores, so that what the student alone
      sees counts as much as what it misses. No gradient flows through weights.

    With focus 2 and a background at 0.03, 1800 queries weigh as much as seven objects at 0.5; with 1, as 108 of them.
    Repeating queries changes nothing: the value is free of their number.

    Args:
        temperature: T > 0; scores in weights are those at 1.
        focus: exponent of the weights; 0 counts all queries alike.
        codes_weight: of the codes' part, the scores' being 1.
        code_weights: of each number of a (flattened) code, e.g. ORION's (2, 2, 1, 1, 1, 1, 1, 1, 1, 1); None for 1.
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
        """Logits (..., Q, C); codes (..., Q, 10), or lines (..., Q, points, 3): what follows Q is one code.

        Returns a scalar: nats times T^2, plus `codes_weight` times units of the codes.

        Raises:
            ValueError: student and teacher, or logits and codes, do not fit.
        """
        self._check(student_logits, teacher_logits, student_codes, teacher_codes)
        ours, theirs = student_logits.float(), teacher_logits.detach().float()
        best = theirs.sigmoid().amax(-1)
        either = torch.maximum(best, ours.detach().sigmoid().amax(-1))
        scores = _weighted_mean(self._divergence(ours, theirs), either**self.focus)
        leading = student_logits.ndim - 1
        distance = (student_codes.float() - teacher_codes.detach().float()).abs().flatten(leading)
        if self.code_weights is not None:
            distance = distance * self.code_weights
        return scores + self.codes_weight * _weighted_mean(distance.sum(-1), best**self.focus)

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """T^2 * binary KL, summed over the classes: (..., Q)."""
        student, teacher = student / self.temperature, teacher / self.temperature
        yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
        no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
        return self.temperature**2 * (yes + no).sum(-1)

    def _check(self, student_logits: Tensor, teacher_logits: Tensor, student_codes: Tensor, teacher_codes: Tensor):
        pairs = {"logits": (student_logits, teacher_logits), "codes": (student_codes, teacher_codes)}
        for name, (ours, theirs) in pairs.items():
            if ours.shape != theirs.shape:
                raise ValueError(f"{name}: student {tuple(ours.shape)}, teacher {tuple(theirs.shape)}")
        queries, numbers = student_logits.shape[:-1], student_codes.shape[student_logits.ndim - 1 :].numel()
        if student_codes.shape[: len(queries)] != queries or student_codes.ndim == len(queries):
            raise ValueError(f"logits {tuple(student_logits.shape)} and codes {tuple(student_codes.shape)} do not fit")
        if self.code_weights is not None and len(self.code_weights) != numbers:
            raise ValueError(f"code_weights has {len(self.code_weights)} numbers, a code {numbers}")


def _weighted_mean(value: Tensor, weight: Tensor) -> Tensor:
    return (value * weight).sum() / weight.sum().clamp(min=1e-6)
