"""Class weights that follow the class frequencies of the batches."""

import torch
from torch import Tensor, nn


class ClassBalance(nn.Module):
    """Running mean of each class's inverse frequency, total / (classes * count), limited to `low..high`.

    The weights are buffers: they are saved, and with DDP the first process's go to all at every step.

    Args:
        num_classes: classes.
        factors: one more factor a class, after the limits; None for none.
        momentum: share of the old weights in the new ones; they start at 1.
        low, high: limits.
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
        """Weights (num_classes,), after a look at `target` (any shape, int64) in training."""
        if self.training:
            classes = torch.arange(len(self.weight), device=target.device)
            # Not bincount, which has no deterministic form on a GPU.
            counts = torch.stack([(target == c).sum() for c in classes])
            total = (target != ignore_index).sum()
            # A batch without a class says nothing about the frequency of that class but that it is rare.
            now = (total / (len(counts) * counts.clamp(min=1))).clamp(self.low, self.high)
            # Not in place: autograd may still hold the weights of this step's other call.
            self.weight = self.momentum * self.weight + (1 - self.momentum) * now
        return self.weight * self.factors
