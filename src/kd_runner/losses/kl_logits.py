"""Distillation of logits (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.masked import masked_mean


class KLLogits(nn.Module):
    """T^2 * KL(teacher || student) of logits softened by T, over the channels, mean over the valid pixels.

    T^2 keeps the size of the gradient when T changes. One pixel is one distribution: neither the number of pixels
    nor the number of classes divides or multiplies the value.

    Args:
        temperature: T > 0.
    """

    def __init__(self, temperature: float = 4.0):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {temperature}; change kd.temperature")
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """student, teacher (B, C, ...); mask (B, ...) bool, False where a pixel is ignored (gradient exactly 0).

        Returns a scalar in nats times T^2.

        Raises:
            ValueError: class counts or sizes differ.
        """
        if student.shape[1] != teacher.shape[1]:
            raise ValueError(f"class-count mismatch: student has {student.shape[1]}, teacher {teacher.shape[1]}")
        if student.shape != teacher.shape:
            raise ValueError(f"spatial mismatch: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}")
        log_student = F.log_softmax(student.float() / self.temperature, dim=1)
        log_teacher = F.log_softmax(teacher.detach().float() / self.temperature, dim=1)
        divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)
        return self.temperature**2 * masked_mean(divergence, mask)
