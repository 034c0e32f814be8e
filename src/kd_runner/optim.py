"""What the optimizer sees: parameter groups, and the schedule of the learning rate."""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(modules: Iterable[nn.Module]) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: weights, with the optimizer's own weight decay, and vectors (biases,
    normalisation), with none.
    """
    trainable = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1]},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final_factor: float = 0.0) -> LambdaLR:
    """Linear warm-up from 0, then half a cosine down to `final_factor` of the learning rate (Loshchilov & Hutter 2017,
    SGDR, equation 5, without restarts).

    Args:
        total_steps: optimizer steps of the whole run.
        warmup_steps: steps of the linear part; at most a tenth of a shorter run.
        final_factor: share of the learning rate that the last step has.
    """
    warmup = min(warmup_steps, total_steps // 10)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(1, total_steps - warmup)
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return LambdaLR(optimizer, factor)
