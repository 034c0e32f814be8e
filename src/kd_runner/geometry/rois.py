"""Matching of ROI outputs (R, ...) to labels (B, N, ...) of a batch that is padded to N ROIs per image."""

from torch import Tensor

VOID = 255


def valid(output: Tensor, roi_mask: Tensor) -> Tensor:
    """Drop the outputs of padding ROIs.

    Args:
        output: (R, ...), where R is B * N, or the number of valid ROIs: then it is returned unchanged.
        roi_mask: (B, N) bool, False for padding.

    Returns:
        (number of valid ROIs, ...).

    Raises:
        ValueError: another number of rows.
    """
    if len(output) == roi_mask.numel():
        return output[roi_mask.flatten()]
    count = int(roi_mask.sum())
    if len(output) != count:
        raise ValueError(f"{len(output)} ROIs in the output; roi_mask has {roi_mask.numel()}, of which {count} count")
    return output


def labels(logits: Tensor, target: Tensor, roi_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Select the ROIs that are valid and have at least one labeled pixel.

    Args:
        logits: (R, C, h, w), see `valid`.
        target: (B, N, h, w) int64, 255 for void.
        roi_mask: (B, N) bool.

    Returns:
        Logits (L, C, h, w) and labels (L, h, w); L may be 0.

    Raises:
        ValueError: sizes of masks and labels differ.
    """
    logits, target = valid(logits, roi_mask).float(), target[roi_mask]
    if logits.shape[-2:] != target.shape[-2:]:
        raise ValueError(
            f"spatial mismatch: masks of {tuple(logits.shape[-2:])} pixels, labels of {tuple(target.shape[-2:])}; "
            "the net's mask_size must be that of the data set"
        )
    labeled = (target != VOID).flatten(1).any(1)
    return logits[labeled], target[labeled]
