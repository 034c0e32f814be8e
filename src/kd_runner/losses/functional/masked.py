"""Masked mean."""

from torch import Tensor


def masked_mean(value: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `value` where `mask` is True.

    Args:
        value: any shape.
        mask: bool of the same shape; masked elements get a gradient of exactly 0. None: the mean of all.

    Returns:
        Scalar; 0 if the mask is False everywhere.

    Raises:
        ValueError: the mask has another shape.
    """
    if mask is None:
        return value.mean()
    if mask.shape != value.shape:
        raise ValueError(f"spatial mismatch: mask {tuple(mask.shape)}, loss map {tuple(value.shape)}")
    return value.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)
