"""Mean over the places that count."""

from torch import Tensor


def masked_mean(value: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `value` (any shape) where `mask` (same shape, bool) is True; all of it without a mask; 0 where none is.

    Masked places get a gradient of exactly 0.

    Raises:
        ValueError: the mask has another shape.
    """
    if mask is None:
        return value.mean()
    if mask.shape != value.shape:
        raise ValueError(f"spatial mismatch: mask {tuple(mask.shape)}, loss map {tuple(value.shape)}")
    return value.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)
