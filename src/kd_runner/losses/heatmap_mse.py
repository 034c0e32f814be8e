"""Response distillation of dense heat maps (Yang et al. 2022, "Towards Efficient 3D Object Detection with Knowledge
Distillation", NeurIPS; "SparseKD")."""

import torch.nn.functional as F
from torch import Tensor, nn


class HeatmapMSE(nn.Module):
    """Squared difference of scores, summed over classes, weighted mean over cells.

    A cell weighs as much as the teacher's best score there, nothing below `threshold`; times the largest of the ground
    truth's Gaussians, where that is given. Most cells are background, and would drown the rest. The value is free of
    the map's size and the number of objects. The authors' weight is 10.

    Args:
        threshold: of the teacher's best score, 0..1.
    """

    def __init__(self, threshold: float = 0.0):
        super().__init__()
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold={threshold} is no score: 0 <= threshold < 1")
        self.threshold = threshold

    def forward(self, student: Tensor, teacher: Tensor, foreground: Tensor | None = None) -> Tensor:
        """student, teacher (B, C, X, Y) logits; foreground (B, C or 1, X, Y) Gaussians in 0..1 of the true centers. A
        teacher's map of another size is brought to the student's grid, as scores, bilinearly.

        Returns a scalar in 0..C; 0 where no cell counts.

        Raises:
            ValueError: class counts differ, or the foreground has another size than the student's map.
        """
        if student.shape[1] != teacher.shape[1]:
            raise ValueError(f"class-count mismatch: student has {student.shape[1]}, teacher {teacher.shape[1]}")
        ours, theirs = student.float().sigmoid(), teacher.detach().float().sigmoid()
        if theirs.shape != ours.shape:
            theirs = F.interpolate(theirs, ours.shape[2:], mode="bilinear", align_corners=False)
        weight = theirs.amax(1)
        weight = weight * (weight > self.threshold)
        if foreground is not None:
            if foreground.shape[2:] != ours.shape[2:]:
                raise ValueError(f"spatial mismatch: foreground {tuple(foreground.shape)}, student {tuple(ours.shape)}")
            weight = weight * foreground.amax(1)
        return ((ours - theirs).square().sum(1) * weight).sum() / weight.sum().clamp(min=1e-6)
