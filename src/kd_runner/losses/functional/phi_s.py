"""PHI-S: standardization of features that treats all directions alike."""

import torch
from torch import Tensor, nn

from kd_runner.losses.functional import ranks
from kd_runner.losses.functional.hadamard import hadamard

Moments = tuple[Tensor, Tensor, Tensor]
"""Count, mean (C,) and scatter matrix (C, C) of vectors."""


class PhiS(nn.Module):
    """Features less their mean, rotated so that all channels have the same variance, and scaled to variance 1.

        y = H U^T (x - mean) / sqrt(mean of e),  covariance = U diag(e) U^T,  H a Hadamard matrix / sqrt(C)

    One scale for all channels keeps the relative size of errors, where a standardization per channel would not; the
    rotation spreads them evenly over the channels. Mean and covariance (unbiased) are those of the first `steps`
    training batches of all processes; then they stay. They are buffers, so that a resumed run continues exactly. Before
    the first training batch the batch's own ones stand in.

    Args:
        channels: C.
        steps: training batches that are measured; until then the statistics so far are used.
        rotate: False for mean and scale alone, for a C without a Hadamard matrix.

    Raises:
        ValueError: no Hadamard matrix of this size.

    Source:
        Ranzinger et al., "PHI-S: Distribution Balancing for Label-Free Multi-Teacher Distillation", 2024, section 3.3;
        RADIO's PHI_Standardize.
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor
    matrix: Tensor
    seen: Tensor

    def __init__(self, channels: int, steps: int = 100, rotate: bool = True):
        super().__init__()
        self.steps = steps
        self.rotation = hadamard(channels) if rotate else None
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("scatter", torch.zeros(channels, channels, dtype=torch.float64))
        self.register_buffer("matrix", torch.eye(channels, dtype=torch.float64))

    @torch.no_grad()
    def forward(self, vectors: Tensor) -> Tensor:
        """Standardize vectors; in training, measure them first, while there are steps left.

        Args:
            vectors: (M, C).

        Returns:
            (M, C).
        """
        seen = int(self.seen)
        learns = self.training and seen < self.steps
        if learns:
            count, mean, scatter = self._with(vectors, everywhere=True)
            self.count.copy_(count)
            self.mean.copy_(mean)
            self.scatter.copy_(scatter)
            self.matrix.copy_(self._matrix(count, scatter))
            self.seen += 1
        elif seen == 0:
            count, mean, scatter = self._with(vectors, everywhere=False)
            return ((vectors.double() - mean) @ self._matrix(count, scatter).T).to(vectors.dtype)
        return ((vectors.double() - self.mean.double()) @ self.matrix.double().T).to(vectors.dtype)

    def _with(self, vectors: Tensor, everywhere: bool) -> Moments:
        """The moments so far, with more vectors; `everywhere`: with those of all processes."""
        new = vectors.double()
        mean = new.mean(0) if len(new) else torch.zeros_like(self.mean)
        count = self.count.new_tensor(float(len(new)))
        moments = [count[None], mean[None], ((new - mean).T @ (new - mean))[None]]
        if everywhere:
            moments = [ranks.gather(moment) for moment in moments]
        total: Moments = (self.count, self.mean, self.scatter)
        for more in zip(*moments):
            total = _merged(total, more)
        return total

    def _matrix(self, count: Tensor, scatter: Tensor) -> Tensor:
        covariance = scatter / (count - 1).clamp(min=1)
        values, vectors = torch.linalg.eigh(covariance)
        scale = values.clamp(min=0).mean().sqrt().clamp(min=1e-6)
        if self.rotation is None:
            return torch.eye(len(values), dtype=values.dtype, device=values.device) / scale
        return self.rotation.to(values.device) @ vectors.T / scale


def _merged(one: Moments, two: Moments) -> Moments:
    """Moments of both sets of vectors together (Chan et al. 1979)."""
    (count, mean, scatter), (more, more_mean, more_scatter) = one, two
    total = (count + more).clamp(min=1)
    offset = more_mean - mean
    between = torch.outer(offset, offset) * (count * more / total)
    return count + more, mean + offset * (more / total), scatter + more_scatter + between
