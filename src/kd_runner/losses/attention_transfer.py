"""Attention transfer: where a convolutional net is active, summed over channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.maps import Features, matched
from kd_runner.losses.functional.masked import masked_mean


class AttentionTransfer(nn.Module):
    """Mean squared difference of normalized activation maps; no channel is matched, so nothing is projected.

        A(x) = a / |a|,  a = mean over channels of x^2, over the valid locations of an image
        loss = mean over levels of mean over images and valid locations of (A(student) - A(teacher))^2

    This is the form of the public code, whose weight is 1000; the paper's is the norm of the difference, without
    square. The teacher's map is resized bilinearly to the student's grid, rows and columns each. (RepDistiller pools
    the larger map to a square of the smaller one's height: wrong for maps that are not square.)

    Args:
        channel_dim: 1 for maps (B, C, H, W); -1 for tokens (B, T, C) and token grids (B, H, W, C).

    Source:
        Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, section 3.1 with p = 2;
        RepDistiller's AT.py; torchdistill's ATLoss in mode `code`.
    """

    def __init__(self, channel_dim: int = 1):
        super().__init__()
        self.channel_dim = channel_dim

    def forward(self, student: Features, teacher: Features, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: maps or tokens, one level or several; channels may differ.
            teacher: likewise.
            mask: (B, H, W) bool of any size, False where a location is ignored (its gradient is exactly 0).

        Returns:
            Scalar; 0 if no location counts.

        Raises:
            ValueError: numbers of levels differ; vectors, which have no locations.
        """
        values = []
        for number, (maps, target, valid) in enumerate(matched(student, teacher, mask, self.channel_dim)):
            if maps.shape[2:] == (1, 1):
                raise ValueError(f"level {number}: {tuple(maps.shape)} has one location: nothing to attend to")
            difference = (_attention(maps, valid) - _attention(target, valid)).square()
            values.append(masked_mean(difference, None if valid is None else valid.flatten(1)))
        return torch.stack(values).mean()


def _attention(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Normalized activation (B, H * W)."""
    power = (maps * maps).sum(1)  # faster than square(); the number of channels cancels
    if mask is not None:
        power = power.masked_fill(~mask, 0.0)
    return F.normalize(power.flatten(1), dim=1)
