"""Distillation of standardized logits: their scale and offset are free."""

import torch
from torch import Tensor, nn

from kd_runner.losses.functional.logits import check_temperature, resized, softened_kl
from kd_runner.losses.functional.maps import full_precision

_EPS = 1e-7


class StandardizedKL(nn.Module):
    """KL divergence of class distributions whose logits are standardized per sample (or pixel) first.

        Z(x) = (x - mean_c x) / (std_c x + 1e-7)
        loss = T^2 * mean over valid pixels of KL(softmax(Z(teacher) / T) || softmax(Z(student) / T))

    mean and std (unbiased, so divided by C - 1) are taken over the classes c of one sample or pixel. (Public code
    standardizes along the last axis, which on a map is the image width.) T^2 is always there. (torchdistill drops it
    together with the weight where alpha is 0 or targets are missing.) The authors' T is 2, their weight 9.

    Args:
        temperature: T > 0, the authors' "base temperature".
        resize: teacher logits of another size are resized bilinearly to the student's, the mask to the nearest pixels,
            see `KLLogits`.

    Raises:
        ValueError: temperature is not above 0.

    Source:
        Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, algorithm 1; torchdistill's
        LogitStdKDLoss.
    """

    def __init__(self, temperature: float = 2.0, resize: bool = False):
        super().__init__()
        self.temperature, self.resize = check_temperature(temperature), resize

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: logits (B, C, ...).
            teacher: likewise.
            mask: (B, ...) bool, False where a pixel is ignored (its gradient is exactly 0).

        Returns:
            Scalar in nats times T^2.

        Raises:
            ValueError: numbers of classes, or sizes, differ.
        """
        if self.resize:
            teacher, mask = resized(teacher, mask, student)
        return softened_kl(_standardized(student, mask), _standardized(teacher, mask), self.temperature, mask)


def _standardized(logits: Tensor, mask: Tensor | None) -> Tensor:
    logits = full_precision(logits)
    if mask is not None and mask.shape == logits.shape[:1] + logits.shape[2:]:
        logits = logits.masked_fill(~mask.unsqueeze(1), 0.0)  # an infinite spread would make 0 * nan of its gradient
    deviation, mean = torch.std_mean(logits, dim=1, keepdim=True)
    return (logits - mean) / (deviation + _EPS)
