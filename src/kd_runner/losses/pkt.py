"""Probabilistic knowledge transfer: how likely the samples of a batch are each other's neighbors."""

import torch
from torch import Tensor, nn

from kd_runner.losses.functional.maps import Features, matched
from kd_runner.losses.functional.pooling import valid_average

_EPS = 1e-7


class PKT(nn.Module):
    """KL divergence of the similarity distributions of a batch.

        P_ij = k_ij / sum_j k_ij,  k_ij = (cos(x_i, x_j) + 1) / 2
        loss = mean over levels of mean over i, j of P^t_ij * log((P^t_ij + 1e-7) / (P^s_ij + 1e-7))

    The mean is over all B * B pairs, as in the public code, not the sum over j and mean over i of a KL divergence;
    hence the large weight of 30000 there. 1e-7 is added to norms as well. An embedding is a vector, or the mean of a
    map over its valid locations. Under DDP the batch is that of one process.

    Args:
        channel_dim: 1 for maps (B, C, H, W) and vectors (B, C); -1 for tokens (B, T, C) and token grids (B, H, W, C).

    Source:
        Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018,
        equations 4 to 7; RepDistiller's PKT.py.
    """

    def __init__(self, channel_dim: int = 1):
        super().__init__()
        self.channel_dim = channel_dim

    def forward(self, student: Features, teacher: Features, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: vectors, maps or tokens, one level or several; channels and sizes may differ.
            teacher: likewise.
            mask: (B, H, W) bool of any size, False where a location is ignored (its gradient is exactly 0). Samples
                without a valid location do not count.

        Returns:
            Scalar in nats; 0 if no sample counts.

        Raises:
            ValueError: numbers of levels differ.
        """
        values = []
        for maps, target, valid in matched(student, teacher, mask, self.channel_dim):
            own, other = valid_average(maps, valid), valid_average(target, valid)
            if len(own) == 0:
                values.append(own.sum())
                continue
            likely_s, likely_t = _neighbors(own), _neighbors(other)
            values.append((likely_t * ((likely_t + _EPS) / (likely_s + _EPS)).log()).mean())
        return torch.stack(values).mean()


def _neighbors(embeddings: Tensor) -> Tensor:
    unit = embeddings / (torch.linalg.vector_norm(embeddings, dim=1, keepdim=True) + _EPS)
    kernel = torch.addmm(unit.new_ones(1), unit, unit.T)  # the half cancels
    return kernel / kernel.sum(1, keepdim=True)
