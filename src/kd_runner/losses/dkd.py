"""Decoupled distillation of logits: the true class against the rest, and the rest among themselves."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.logits import check_pair, check_temperature, resized
from kd_runner.losses.functional.maps import full_precision
from kd_runner.losses.functional.masked import masked_mean


class DKD(nn.Module):
    """KL divergence split into target-class and non-target-class distillation, each with a weight of its own.

    With p, q the distributions softmax(logits / T) of teacher and student, y the label, and p^, q^ those over the
    classes without y,

        TCKD = KL((p_y, 1 - p_y) || (q_y, 1 - q_y)),  NCKD = KL(p^ || q^)
        loss = T^2 * mean over valid pixels of alpha * TCKD + beta * NCKD

    The sum over classes is averaged over samples (pixels), as in the authors' code. (mmrazor's `reduction` other than
    batchmean becomes a sum.) The classes without y are taken in log space, where the authors subtract 1000 from the
    logit of y: equal up to exp(-1000), and without overflow. The authors' warm-up of the weight is no part of the loss.

    Args:
        alpha: weight of TCKD; the authors' is 1.
        beta: weight of NCKD; the authors' are 8 (ResNet32x4 to ResNet8x4), 2 or 6 (CIFAR-100), 0.5 (ImageNet).
        temperature: T > 0; the authors' is 4 on CIFAR-100, 1 on ImageNet.
        teacher_labels: take the teacher's class for y where there is no label; else such pixels are ignored.
        ignore_index: label of pixels without one.
        resize: teacher logits of another size are resized bilinearly to the student's, mask and labels to
            their nearest pixels, see `KLLogits`.

    Raises:
        ValueError: temperature is not above 0.

    Source:
        Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, equation 7; mdistiller/distillers/DKD.py.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        teacher_labels: bool = False,
        ignore_index: int = 255,
        resize: bool = False,
    ):
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, check_temperature(temperature)
        self.teacher_labels, self.ignore_index, self.resize = teacher_labels, ignore_index, resize

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: logits (B, C, ...) of two classes at least.
            teacher: likewise.
            target: (B, ...) int64.
            mask: (B, ...) bool, False where a pixel is ignored (its gradient is exactly 0), as it is where there is no
                label, see `teacher_labels`.

        Returns:
            Scalar in nats times T^2; 0 if no pixel counts.

        Raises:
            ValueError: numbers of classes, or sizes, differ.
        """
        if self.resize:
            teacher, mask = resized(teacher, mask, student)
            if target.shape[1:] != student.shape[2:]:
                size = student.shape[2:]
                target = F.interpolate(target[:, None].double(), size, mode="nearest-exact")[:, 0].long()
        check_pair(student, teacher)
        if student.shape[:1] + student.shape[2:] != target.shape:
            raise ValueError(f"spatial mismatch: logits {tuple(student.shape)}, target {tuple(target.shape)}")
        teacher = full_precision(teacher.detach())
        labeled = target != self.ignore_index
        if self.teacher_labels:
            target = torch.where(labeled, target, teacher.argmax(1))
        else:
            mask = labeled if mask is None else mask & labeled
            target = target.masked_fill(~labeled, 0)
        index = target.unsqueeze(1)
        true_s, rest_s, others_s = _split(full_precision(student) / self.temperature, index)
        true_t, rest_t, others_t = _split(teacher / self.temperature, index)
        tckd = true_t.exp() * (true_t - true_s) + rest_t.exp() * (rest_t - rest_s)
        # Its own entry goes before the exponential: it may be above any number.
        likely = others_t.scatter(1, index, -torch.inf).exp()
        nckd = (likely * (others_t - others_s).scatter(1, index, 0.0)).sum(1)
        return self.temperature**2 * masked_mean(self.alpha * tckd + self.beta * nckd, mask)


def _split(logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of the probability of the label, that of all other classes, and of each given that it is another one.

    The entries of the label itself in the last one are meaningless.
    """
    logs = F.log_softmax(logits, dim=1)
    rest = logs.scatter(1, index, -torch.inf).logsumexp(1)
    return logs.gather(1, index).squeeze(1), rest, logs - rest.unsqueeze(1)
