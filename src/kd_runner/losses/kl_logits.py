"""Distillation of logits by KL divergence."""

import torch.nn.functional as F
from torch import Size, Tensor, nn

from kd_runner.losses.functional.masked import masked_mean


class KLLogits(nn.Module):
    """KL divergence between teacher and student class distributions, softened by a temperature.

        loss = T^2 * mean over valid pixels of KL(softmax(teacher / T) || softmax(student / T))

    T^2 keeps the size of the gradient when T changes. One pixel is one distribution: the value depends neither on the
    number of pixels nor on that of classes.

    Args:
        temperature: T > 0.
        resize: teacher logits (B, C, h, w) of another size are resized bilinearly to the student's, and the mask to
            its nearest pixels: for logits as the nets compute them, before they are upsampled to the image. A map of a
            quarter of the image's sides has a sixteenth of its pixels to compute.

    Raises:
        ValueError: temperature is not above 0.

    Source:
        Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """

    def __init__(self, temperature: float = 4.0, resize: bool = False):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.temperature, self.resize = temperature, resize

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: logits (B, C, ...).
            teacher: logits (B, C, ...).
            mask: (B, ...) bool, False where a pixel is ignored (its gradient is exactly 0); with `resize` of any size.

        Returns:
            Scalar in nats times T^2.

        Raises:
            ValueError: numbers of classes differ, or sizes without `resize`.
        """
        if student.shape[1] != teacher.shape[1]:
            raise ValueError(f"class-count mismatch: student has {student.shape[1]}, teacher {teacher.shape[1]}")
        if self.resize:
            teacher, mask = _resize(teacher, mask, student.shape[2:])
        if student.shape != teacher.shape:
            raise ValueError(f"spatial mismatch: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}")
        log_student = F.log_softmax(student.float() / self.temperature, dim=1)
        log_teacher = F.log_softmax(teacher.detach().float() / self.temperature, dim=1)
        divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)
        return self.temperature**2 * masked_mean(divergence, mask)


def _resize(logits: Tensor, mask: Tensor | None, size: Size) -> tuple[Tensor, Tensor | None]:
    """Logits (B, C, h, w) and mask (B, H, W) at `size`."""
    if logits.shape[2:] != size:
        logits = F.interpolate(logits.detach(), size, mode="bilinear", align_corners=False)
    if mask is not None and mask.shape[1:] != size:
        mask = F.interpolate(mask[:, None].float(), size, mode="nearest-exact")[:, 0].bool()
    return logits, mask
