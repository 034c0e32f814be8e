"""Distillation of logits by KL divergence."""

from torch import Tensor, nn

from kd_runner.losses.functional.logits import check_temperature, resized, softened_kl


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

    Example:
        >>> import torch
        >>> kl = KLLogits(temperature=1.0)
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]])
        >>> round(kl(student, teacher).item(), 4)  # log 2
        0.6931
    """

    def __init__(self, temperature: float = 4.0, resize: bool = False):
        super().__init__()
        self.temperature, self.resize = check_temperature(temperature), resize

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
        if self.resize:
            teacher, mask = resized(teacher, mask, student)
        return softened_kl(student, teacher, self.temperature, mask)
