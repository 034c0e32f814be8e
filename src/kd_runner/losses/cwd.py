"""Channel-wise distillation: where each channel is active."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.logits import check_temperature
from kd_runner.losses.functional.maps import Features, check_channels, full_precision, matched
from kd_runner.losses.functional.projections import projections


class CWD(nn.Module):
    """KL divergence of the spatial distribution of each channel.

        loss = mean over levels of T^2 / (N * C) * sum over images and channels of KL(phi(teacher) || phi(student))
        phi(x) = softmax over the valid locations of one channel of x / T

    N is the number of images with a valid location, C that of the teacher's channels. (CIRKD's copy divides by the
    student's channels before its projection.) Where the numbers of channels differ, a 1x1 convolution without bias maps
    the student's to the teacher's. The teacher's map is resized bilinearly to the student's grid. The authors' weight
    is 3 on logits with T = 4, mmrazor's 5 with T = 1; a sum over locations, not a mean.

    Args:
        temperature: T > 0.
        channel_dim: 1 for maps (B, C, H, W); -1 for tokens (B, T, C) and token grids (B, H, W, C).

    Raises:
        ValueError: temperature is not above 0.

    Source:
        Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, equations 3 and 4;
        mmrazor/models/losses/cwd.py.
    """

    def __init__(self, temperature: float = 1.0, channel_dim: int = 1):
        super().__init__()
        self.temperature, self.channel_dim = check_temperature(temperature), channel_dim
        self.projections = nn.ModuleList()

    def build(self, student: Features, teacher: Features, mask: Tensor | None = None) -> None:
        """Create a projection where the numbers of channels differ.

        Args:
            student: as for `forward`.
            teacher: as for `forward`.
            mask: as for `forward`.
        """
        self.projections = projections(student, teacher, self.channel_dim, always=False)

    def forward(self, student: Features, teacher: Features, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: maps or tokens, one level or several, or logits (B, C, H, W).
            teacher: likewise.
            mask: (B, H, W) bool of any size, False where a location is ignored (its gradient is exactly 0).

        Returns:
            Scalar in nats times T^2; 0 if no location counts.

        Raises:
            ValueError: numbers of levels or channels differ; vectors, which have no locations.
        """
        values = []
        for number, (maps, target, valid) in enumerate(matched(student, teacher, mask, self.channel_dim)):
            if maps.shape[2:] == (1, 1):
                raise ValueError(
                    f"level {number}: {tuple(maps.shape)} has one location: nothing to compare in a channel"
                )
            if self.projections:
                maps = full_precision(self.projections[number](maps))
            check_channels(maps, target)
            values.append(self.temperature**2 * self._divergence(maps, target, valid))
        return torch.stack(values).mean()

    def _divergence(self, student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
        own, other = (maps.flatten(2) / self.temperature for maps in (student, teacher))
        if mask is None:
            log_own, log_other = F.log_softmax(own, 2), F.log_softmax(other, 2)
            return (log_other.exp() * (log_other - log_own)).sum() / (own.shape[0] * own.shape[1])
        counts = mask.flatten(1).any(1)
        # An image without a valid location is compared nowhere; a softmax over nothing would be nan.
        valid = (mask.flatten(1) | ~counts[:, None])[:, None]
        log_own, log_other = (F.log_softmax(maps.masked_fill(~valid, -torch.inf), 2) for maps in (own, other))
        compared = valid & counts[:, None, None]
        difference = log_other.masked_fill(~compared, 0.0) - log_own.masked_fill(~compared, 0.0)
        return (log_other.exp() * difference).sum() / (counts.sum().clamp(min=1) * own.shape[1])
