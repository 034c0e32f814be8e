"""Response distillation of dense heat maps."""

import torch.nn.functional as F
from torch import Tensor, nn


class HeatmapMSE(nn.Module):
    """Squared difference of scores, weighted by the teacher's confidence.

        loss = sum over cells of w * sum over classes of (sigmoid(student) - sigmoid(teacher))^2 / sum over cells of w

    with w the teacher's highest score in the cell, 0 up to `threshold`, times the largest ground-truth Gaussian in the
    cell where `foreground` is given. Most cells are background and would dominate an unweighted mean. The value depends
    neither on the map's size nor on the number of objects. The authors' weight is 10.

    Args:
        threshold: cells count where the teacher's highest score is above it, 0..1.

    Raises:
        ValueError: threshold is outside of 0..1.

    Source:
        Yang et al., "Towards Efficient 3D Object Detection with Knowledge Distillation" (SparseKD), NeurIPS 2022.
    """

    def __init__(self, threshold: float = 0.0):
        super().__init__()
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold={threshold}: must be a score, 0 <= threshold < 1")
        self.threshold = threshold

    def forward(self, student: Tensor, teacher: Tensor, foreground: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: logits (B, C, X, Y). The teacher's scores are resized bilinearly to the student's map.
            teacher: as `student`.
            foreground: Gaussians at the true centers, 0..1, (B, C or 1, X, Y) of the student's size.

        Returns:
            Scalar in 0..C; 0 if no cell counts.

        Raises:
            ValueError: numbers of classes differ, or the foreground has another size than the student's map.
        """
        if student.shape[1] != teacher.shape[1]:
            raise ValueError(f"class-count mismatch: student has {student.shape[1]}, teacher {teacher.shape[1]}")
        student, teacher = student.float().sigmoid(), teacher.detach().float().sigmoid()
        if teacher.shape != student.shape:
            teacher = F.interpolate(teacher, student.shape[2:], mode="bilinear", align_corners=False)
        weight = teacher.amax(1)
        weight = weight * (weight > self.threshold)
        if foreground is not None:
            if foreground.shape[2:] != student.shape[2:]:
                raise ValueError(
                    f"spatial mismatch: foreground {tuple(foreground.shape)}, student {tuple(student.shape)}"
                )
            weight = weight * foreground.amax(1)
        return ((student - teacher).square().sum(1) * weight).sum() / weight.sum().clamp(min=1e-6)
