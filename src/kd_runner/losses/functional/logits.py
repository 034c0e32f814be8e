"""KL divergence of softened class distributions."""

import torch.nn.functional as F
from torch import Tensor

from kd_runner.losses.functional.maps import full_precision
from kd_runner.losses.functional.masked import masked_mean


def check_pair(student: Tensor, teacher: Tensor) -> None:
    """Refuse logits of different numbers of classes, or sizes.

    Args:
        student: (B, C, ...).
        teacher: likewise.

    Raises:
        ValueError: they differ.
    """
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(f"class-count mismatch: student has {student.shape[1]}, teacher {teacher.shape[1]}")
    if student.shape != teacher.shape:
        raise ValueError(f"spatial mismatch: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}")


def resized(teacher: Tensor, mask: Tensor | None, student: Tensor) -> tuple[Tensor, Tensor | None]:
    """Bring the teacher's logits and a mask to the size of the student's logits, as the nets compute them.

    Args:
        teacher: (B, C, h, w), resized bilinearly.
        mask: (B, H, W) bool or None, resized to its nearest pixels.
        student: (B, C, H', W').

    Returns:
        Logits (B, C, H', W') without gradient, and mask (B, H', W').
    """
    size = student.shape[2:]
    if teacher.shape[2:] != size:
        teacher = F.interpolate(teacher.detach(), size, mode="bilinear", align_corners=False)
    if mask is not None and mask.shape[1:] != size:
        mask = F.interpolate(mask[:, None].float(), size, mode="nearest-exact")[:, 0].bool()
    return teacher, mask


def check_temperature(temperature: float) -> float:
    """Refuse a temperature that is not above 0.

    Args:
        temperature: T.

    Returns:
        T.

    Raises:
        ValueError: it is not above 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    return temperature


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0, dim: int = 1) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)) along a dimension; without T^2.

    Args:
        student: logits.
        teacher: logits of the same shape.
        temperature: T.
        dim: dimension of the classes.

    Returns:
        The logits' shape without `dim`, in nats.
    """
    log_student = F.log_softmax(full_precision(student) / temperature, dim=dim)
    log_teacher = F.log_softmax(full_precision(teacher.detach()) / temperature, dim=dim)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim)


def softened_kl(student: Tensor, teacher: Tensor, temperature: float, mask: Tensor | None = None) -> Tensor:
    """T^2 times the mean over valid pixels of the KL divergence of the class distributions, see `KLLogits`.

    Args:
        student: logits (B, C, ...).
        teacher: likewise.
        temperature: T.
        mask: (B, ...) bool, False where a pixel is ignored (its gradient is exactly 0).

    Returns:
        Scalar in nats times T^2.

    Raises:
        ValueError: numbers of classes, or sizes, differ.
    """
    check_pair(student, teacher)
    return temperature**2 * masked_mean(divergence(student, teacher, temperature), mask)
