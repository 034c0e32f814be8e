"""Distillation of logits by KL divergence."""

import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.masked import masked_mean


class KLLogits(nn.Module):
    """KL divergence between teacher and student class distributions, softened by a temperature.

        loss = T^2 * mean over valid pixels of KL(softmax(teacher / T) || softmax(student / T))

    T^2 keeps the size of the gradient when T changes. One pixel is one distribution: the value depends neither on the
    number of pixels nor on that of classes.

    Args:
        temperature: T > 0.

    Raises:
        ValueError: temperature is not above 0.

    Source:
        Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """

    def __init__(self, temperature: float = 4.0):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: logits (B, C, ...).
            teacher: logits (B, C, ...).
            mask: (B, ...) bool, False where a pixel is ignored (its gradient is exactly 0).

        Returns:
            Scalar in nats times T^2.

        Raises:
            ValueError: numbers of classes, or sizes, differ.
        """
        if student.shape[1] != teacher.shape[1]:
            raise ValueError(f"class-count mismatch: student has {student.shape[1]}, teacher {teacher.shape[1]}")
        if student.shape != teacher.shape:
            raise ValueError(f"spatial mismatch: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}")
        log_student = F.log_softmax(student.float() / self.temperature, dim=1)
        log_teacher = F.log_softmax(teacher.detach().float() / self.temperature, dim=1)
        divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)
        return self.temperature**2 * masked_mean(divergence, mask)
