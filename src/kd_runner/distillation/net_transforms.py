"""What stands between a batch and a net: inputs as the net wants them, features as losses and metrics want them.

A feature transform is called with the feature and the size (H, W) of the batch's images; an input transform with the
tensor of the batch. They are part of the net: exported with it, and in the key of the teacher cache.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class TokensToMap:
    """Tokens (B, N, C) of a vision transformer as a map (B, C, h, w).

    Args:
        prefix: tokens before those of the patches, which are dropped: 1 class token (ViT, DINOv2), 5 with four register
            tokens (DINOv3), 0 (Swin).
        grid: (h, w); None for the one with the images' ratio of height to width.
    """

    prefix: int = 1
    grid: Sequence[int] | None = None

    def __call__(self, tokens: Tensor, size: Size | None) -> Tensor:
        """The map.

        Raises:
            ValueError: no tokens (B, N, C), or their number fits no grid.
        """
        if tokens.ndim != 3:
            raise ValueError(f"TokensToMap takes tokens (B, N, C), not {tuple(tokens.shape)}")
        patches = tokens.shape[1] - self.prefix
        if self.grid is None and size is None:
            raise ValueError("TokensToMap needs grid=[h, w] where the net's inputs hold no image (B, C, H, W)")
        grid = tuple(self.grid) if self.grid is not None else _grid(patches, size)  # type: ignore[arg-type]
        if grid is None or math.prod(grid) != patches:
            square = [str(p) for p in range(9) if math.isqrt(tokens.shape[1] - p) ** 2 == tokens.shape[1] - p]
            raise ValueError(
                f"TokensToMap: {tokens.shape[1]} tokens less prefix={self.prefix} make no grid of the images' shape "
                f"{size}; give prefix=... or grid=[h, w] (a square grid has prefix {' or '.join(square) or 'none'})"
            )
        return tokens[:, self.prefix :].transpose(1, 2).unflatten(2, grid)


def _grid(patches: int, size: Size) -> Size | None:
    """The (h, w) of so many square patches of one size on an image of `size`; None where there is none."""
    for h in range(1, patches + 1):
        w = patches // h
        low, high = max(size[0] / (h + 1), size[1] / (w + 1)), min(size[0] / h, size[1] / w)
        if h * w == patches and low < high:  # a patch size that lies in (low, high]
            return h, w
    return None


@dataclass(frozen=True)
class MapToTokens:
    """A map (B, C, h, w) as tokens (B, h * w, C)."""

    def __call__(self, value: Tensor, size: Size | None) -> Tensor:
        """The tokens.

        Raises:
            ValueError: no map.
        """
        if value.ndim != 4:
            raise ValueError(f"MapToTokens takes a map (B, C, h, w), not {tuple(value.shape)}")
        return value.flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class ChannelsFirst:
    """A map (B, h, w, C), as Swin of timm and torchvision gives it, as (B, C, h, w)."""

    def __call__(self, value: Tensor, size: Size | None) -> Tensor:
        """The map.

        Raises:
            ValueError: no map.
        """
        if value.ndim != 4:
            raise ValueError(f"ChannelsFirst takes a map (B, h, w, C), not {tuple(value.shape)}")
        return value.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Resize:
    """A map (B, C, h, w) at the size of the images, or at `size`: logits that a net gives at a fraction of it.

    Args:
        size: (H, W); None for that of the batch's images.
        mode: of `torch.nn.functional.interpolate`.
    """

    size: Sequence[int] | None = None
    mode: str = "bilinear"

    def __call__(self, value: Tensor, size: Size | None) -> Tensor:
        """The map.

        Raises:
            ValueError: no map, or no size.
        """
        target_size = tuple(self.size) if self.size is not None else size
        if value.ndim != 4 or target_size is None:
            raise ValueError(f"Resize takes a map (B, C, h, w) and images or size=[H, W], not {tuple(value.shape)}")
        if value.shape[-2:] == target_size:
            return value
        corners: dict[str, Any] = {} if self.mode in ("nearest", "nearest-exact", "area") else {"align_corners": False}
        return F.interpolate(value, target_size, mode=self.mode, **corners)


@dataclass(frozen=True)
class ImageInput:
    """Images (B, 3, H, W) of the data set, normalized and sized as another net wants them.

        image' = ((image * std + mean) - wanted_mean) / wanted_std, resized to `size`

    Args:
        mean, std: with which the data set normalizes its images.
        wanted_mean, wanted_std: what the net was trained with.
        size: (H, W) that the net wants; None as they are.
    """

    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    wanted_mean: Sequence[float] = (0.0, 0.0, 0.0)
    wanted_std: Sequence[float] = (1.0, 1.0, 1.0)
    size: Sequence[int] | None = None

    def __call__(self, image: Tensor) -> Tensor:
        """The net's images (B, 3, H', W')."""
        mean, std, wanted_mean, wanted_std = (
            torch.tensor(values, dtype=image.dtype, device=image.device).view(-1, 1, 1)
            for values in (self.mean, self.std, self.wanted_mean, self.wanted_std)
        )
        if self.size is not None and tuple(self.size) != image.shape[-2:]:
            image = F.interpolate(image, tuple(self.size), mode="bilinear", align_corners=False, antialias=True)
        return image * (std / wanted_std) + (mean - wanted_mean) / wanted_std
