"""Class weights from a running mean of the class frequencies."""

import torch
from torch import Tensor, nn


class ClassBalance(nn.Module):
    """Running mean of each class's inverse frequency, total / (classes * count), clamped to `low..high`.

    The weights are buffers: they are part of checkpoints; with DDP those of the first process are broadcast at every
    step.

    Args:
        num_classes: number of classes C.
        factors: additional factor per class, applied after clamping; None for 1.
        momentum: weight of the old value in the running mean, in 0..1; the mean starts at 1.
        low: lower limit of the weights.
        high: upper limit of the weights.
    """

    weight: Tensor
    factors: Tensor

    def __init__(
        self,
        num_classes: int,
        factors: tuple[float, ...] | None = None,
        momentum: float = 0.9,
        low: float = 0.5,
        high: float = 3.0,
    ):
        super().__init__()
        self.momentum, self.low, self.high = momentum, low, high
        self.register_buffer("weight", torch.ones(num_classes))
        self.register_buffer("factors", torch.tensor(factors or [1.0] * num_classes), persistent=False)

    @torch.no_grad()
    def forward(self, target: Tensor, ignore_index: int) -> Tensor:
        """Update the running mean (in training) and return the weights.

        Args:
            target: labels of any shape, int64.
            ignore_index: label that is not counted.

        Returns:
            (C,) weights.
        """
        if self.training:
            classes = torch.arange(len(self.weight), device=target.device)
            # Not bincount, which has no deterministic form on a GPU.
            counts = torch.stack([(target == c).sum() for c in classes])
            total = (target != ignore_index).sum()
            # A class that a batch lacks is counted once.
            current = (total / (len(counts) * counts.clamp(min=1))).clamp(self.low, self.high)
            # Not in place: autograd may still hold the weights of this step's other call.
            self.weight = self.momentum * self.weight + (1 - self.momentum) * current
        return self.weight * self.factors
