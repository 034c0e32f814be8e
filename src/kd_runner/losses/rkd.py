"""Relational distillation: distances and angles between the embeddings of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.maps import Features, matched
from kd_runner.losses.functional.pooling import valid_average


class RKD(nn.Module):
    """Smooth L1 distance between the relations of the student's embeddings and those of the teacher's.

        d_ij = |x_i - x_j| / mean of the distances above 0
        a_ijk = cos of the angle at x_j between x_i and x_k, 0 where two of them coincide
        loss = mean over levels of distance_weight * mean over i, j of h(d_ij^s - d_ij^t)
               + angle_weight * mean over i, j, k of h(a_ijk^s - a_ijk^t),  h(e) = e^2 / 2 up to 1, then |e| - 1/2

    The means run over the diagonal and over degenerate triples, too, as in the public code: B^2 and B^3 values. An
    embedding is a vector, or the mean of a map over its valid locations. (Public code flattens maps.) Distances and
    angles come from one matrix of dot products of centered embeddings in float64: B^3 numbers where the public code
    holds B^2 * C of them, and no loss of digits. Under DDP the batch is that of one process.

    Args:
        distance_weight: weights of the two parts; the authors' are 25 and 50.
        angle_weight: likewise.
        channel_dim: 1 for maps (B, C, H, W) and vectors (B, C); -1 for tokens (B, T, C) and token grids (B, H, W, C).

    Source:
        Park et al., "Relational Knowledge Distillation", CVPR 2019, equations 4 to 8; RepDistiller's RKD.py.
    """

    def __init__(self, distance_weight: float = 25.0, angle_weight: float = 50.0, channel_dim: int = 1):
        super().__init__()
        self.distance_weight, self.angle_weight = distance_weight, angle_weight
        self.channel_dim = channel_dim

    def forward(self, student: Features, teacher: Features, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: vectors, maps or tokens, one level or several; channels and sizes may differ.
            teacher: likewise.
            mask: (B, H, W) bool of any size, False where a location is ignored (its gradient is exactly 0). Samples
                without a valid location do not count.

        Returns:
            Scalar; 0 for fewer than two samples.

        Raises:
            ValueError: numbers of levels differ.
        """
        values = []
        for maps, target, valid in matched(student, teacher, mask, self.channel_dim):
            own, other = (valid_average(m, valid) for m in (maps, target))
            values.append(self._relations(own, other).to(own.dtype))
        return torch.stack(values).mean()

    def _relations(self, student: Tensor, teacher: Tensor) -> Tensor:
        if len(student) < 2:
            return 0.0 * student.sum()
        value = student.new_zeros((), dtype=torch.float64)
        own, other = _dot_products(student), _dot_products(teacher)
        own_distances, other_distances = _distances(own), _distances(other)
        if self.distance_weight:
            distance = F.smooth_l1_loss(_relative(own_distances), _relative(other_distances))
            value = value + self.distance_weight * distance
        if self.angle_weight:
            angle = F.smooth_l1_loss(_angles(own, own_distances), _angles(other, other_distances))
            value = value + self.angle_weight * angle
        return value


def _dot_products(embeddings: Tensor) -> Tensor:
    """(B, B) of embeddings less their mean, float64."""
    centered = embeddings.double()
    centered = centered - centered.mean(0)
    return centered @ centered.T


def _distances(dots: Tensor) -> Tensor:
    """(B, B); exactly 0, without gradient, on the diagonal and where two samples coincide."""
    squares = dots.diagonal()
    squared = squares[:, None] + squares - 2 * dots
    # Rounding leaves up to about 1e-15 of the squared norms between equal embeddings.
    apart = (squared > 1e-14 * (squares[:, None] + squares)) & ~torch.eye(
        len(dots), dtype=torch.bool, device=dots.device
    )
    return torch.where(apart, squared, 1.0).sqrt() * apart


def _relative(distances: Tensor) -> Tensor:
    return distances / (distances.sum() / (distances > 0).sum().clamp(min=1)).clamp(min=1e-12)


def _angles(dots: Tensor, distances: Tensor) -> Tensor:
    """(B, B, B) cosines: [j, i, k] is the angle at j between i and k."""
    inverse = (distances > 0) / torch.where(distances > 0, distances, 1.0)
    at_j = dots[:, :, None]
    product = dots[None] - at_j - at_j.transpose(1, 2) + dots.diagonal()[:, None, None]
    return product * inverse[:, :, None] * inverse[:, None]
