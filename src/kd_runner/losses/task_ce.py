"""Cross entropy on labels, for dense prediction or plain classification."""

import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropy(nn.Module):
    """Mean cross entropy over the pixels whose label is not `ignore_index`; 0 if there is none.

        loss = mean over labeled pixels of -log softmax(logits)[target]

    Args:
        ignore_index: label that is left out, with a gradient of exactly 0 (VOC: 255).
        upsample: logits (B, C, h, w) smaller than the target are upsampled bilinearly to its size, as a segmentation
            net does with its own. Reading them before that is cheaper: images without any label are left out first.
    """

    def __init__(self, ignore_index: int = 255, upsample: bool = False):
        super().__init__()
        self.ignore_index, self.upsample = ignore_index, upsample

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: (B, C, ...); with `upsample` (B, C, h, w).
            target: (B, ...) int64; with `upsample` (B, H, W).

        Returns:
            Scalar in nats.

        Raises:
            ValueError: the target's size is not that of the logits, and `upsample` is false.
        """
        if target.device.type == "cpu" and target.ndim > 1:  # elsewhere it would wait for the device
            labeled = (target != self.ignore_index).flatten(1).any(1)
            if len(target) == len(logits) and labeled.any() and not labeled.all():
                logits, target = logits[labeled], target[labeled]
        if self.upsample and logits.ndim == 4 and logits.shape[2:] != target.shape[1:]:
            logits = F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=False)
        if logits.shape[:1] + logits.shape[2:] != target.shape:
            raise ValueError(f"spatial mismatch: logits {tuple(logits.shape)}, target {tuple(target.shape)}")
        total = F.cross_entropy(logits.float(), target, ignore_index=self.ignore_index, reduction="sum")
        return total / (target != self.ignore_index).sum().clamp(min=1)
