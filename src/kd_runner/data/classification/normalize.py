"""Images of classification as float tensors, normalized per channel."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Normalize:
    """`(pixel / 255 - mean) / std` of uint8 images.

    Args:
        mean: of red, green and blue, for values in 0..1.
        std: of red, green and blue, for values in 0..1.

    Raises:
        ValueError: not three numbers each, or a std that is not above 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean={list(mean)}, std={list(std)}: three numbers each, those of std above 0")
        # As a deployer needs it, in the metadata of exported files.
        self.metadata: dict[str, Any] = {
            "mean": list(mean), "std": list(std), "channel_order": "RGB", "value_range": [0, 1],
        }  # fmt: skip
        self._scale = (1 / (255 * torch.tensor(std))).view(3, 1, 1)
        self._shift = (torch.tensor(mean) / torch.tensor(std)).view(3, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Scale uint8 pixels (3, H, W) to 0..1, then subtract mean and divide by std."""
        return pixels * self._scale - self._shift
