"""ROIs in one row: outputs (R, ...) beside labels (B, N, ...) of a batch padded to N ROIs an image."""

from torch import Tensor

VOID = 255


def valid(output: Tensor, roi_mask: Tensor) -> Tensor:
    """Rows of ROIs that count, image by image.

    output: (R, ...) with R = B * N, or R the number of those that count: then it is as it should be.
    roi_mask: (B, N) bool.

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
    """Logits (L, C, h, w) and labels (L, h, w) of the ROIs that count and have a label anywhere; L may be 0.

    Raises:
        ValueError: sizes differ.
    """
    logits, target = valid(logits, roi_mask).float(), target[roi_mask]
    if logits.shape[-2:] != target.shape[-2:]:
        raise ValueError(
            f"masks of {tuple(logits.shape[-2:])} pixels, labels of {tuple(target.shape[-2:])}: "
            "net.mask_size must be the data set's"
        )
    labeled = (target != VOID).flatten(1).any(1)
    return logits[labeled], target[labeled]
