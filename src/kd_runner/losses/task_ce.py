"""Cross entropy on labels, for dense prediction or plain classification."""

import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropy(nn.Module):
    """Mean cross entropy over the pixels whose label is not `ignore_index`; 0 if there is none.

        loss = mean over labeled pixels of -log softmax(logits)[target]

    Args:
        ignore_index: label that is left out, with a gradient of exactly 0 (VOC: 255).
    """

    def __init__(self, ignore_index: int = 255):
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: (B, C, ...).
            target: (B, ...) int64.

        Returns:
            Scalar in nats.

        Raises:
            ValueError: the target's size is not that of the logits.
        """
        if logits.shape[:1] + logits.shape[2:] != target.shape:
            raise ValueError(f"spatial mismatch: logits {tuple(logits.shape)}, target {tuple(target.shape)}")
        total = F.cross_entropy(logits.float(), target, ignore_index=self.ignore_index, reduction="sum")
        return total / (target != self.ignore_index).sum().clamp(min=1)
