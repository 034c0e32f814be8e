"""Distillation by correlation of class distributions, between classes and within each of them."""

import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.logits import check_pair, check_temperature, resized
from kd_runner.losses.functional.maps import full_precision, rows

_EPS = 1e-8


class DIST(nn.Module):
    """One minus the Pearson correlation of student and teacher, of each sample over classes and vice versa.

    With Y (M, C) the distributions softmax(logits / T) of the M samples or valid pixels and r the correlation,

        loss = T^2 * (beta * (1 - mean over rows of r) + gamma * (1 - mean over columns of r))

    All valid pixels of the batch are the rows, as in the authors' segmentation code. (mmrazor's form on a map
    correlates over the batch, and for every pixel position anew.) A norm is 1e-8 at least
    (torchdistill; mmrazor adds 1e-8 to the product of both).

    Args:
        beta: weight of the relation between classes (rows).
        gamma: weight of the relation within a class (columns).
        temperature: T > 0; the authors' is 1 on ImageNet and Cityscapes, 4 on CIFAR-100.
        resize: teacher logits of another size are resized bilinearly to the student's, the mask to the nearest pixels,
            see `KLLogits`.

    Raises:
        ValueError: temperature is not above 0.

    Source:
        Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, equations 8 to 10;
        mmrazor/models/losses/dist_loss.py.
    """

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0, resize: bool = False):
        super().__init__()
        self.beta, self.gamma, self.temperature = beta, gamma, check_temperature(temperature)
        self.resize = resize

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: logits (B, C, ...).
            teacher: likewise.
            mask: (B, ...) bool, False where a pixel is ignored (its gradient is exactly 0).

        Returns:
            Scalar; 0 if no pixel counts.

        Raises:
            ValueError: numbers of classes, or sizes, differ.
        """
        if self.resize:
            teacher, mask = resized(teacher, mask, student)
        check_pair(student, teacher)
        logits = rows(full_precision(student), mask)
        if len(logits) == 0:
            return logits.sum()
        own = (logits / self.temperature).softmax(1)
        other = (rows(full_precision(teacher.detach()), mask) / self.temperature).softmax(1)
        mean = 1 / own.shape[1]  # of a distribution over the classes
        between = 1 - F.cosine_similarity(own - mean, other - mean, dim=1, eps=_EPS).mean()
        within = 1 - F.cosine_similarity(own - own.mean(0), other - other.mean(0), dim=0, eps=_EPS).mean()
        return self.temperature**2 * (self.beta * between + self.gamma * within)
