"""One-to-one assignment of predictions to objects (Carion et al. 2020, "DETR", section 3.1)."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_WORST = 1e6  # stands in for costs that are not finite


class Pairs(NamedTuple):
    """P matched pairs, each part `(P,)`: decoder layer, sample, query, and object."""

    layer: Tensor
    sample: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(cost: Tensor, mask: Tensor, repeats: int = 1) -> Pairs:
    """The cheapest assignment in every decoder layer of every sample.

    Args:
        cost: `(L, B, Q, M)`; what is not finite is as bad as can be.
        mask: objects `(B, M)`, False for padding, which is matched to nothing.
        repeats: queries that each object may have. Of more than Q copies of objects, the cheapest Q are matched.
    """
    device, rows = cost.device, []
    costs = cost.float().nan_to_num(_WORST, _WORST, -_WORST).cpu().numpy()  # one transfer for all layers
    objects = [np.tile(np.flatnonzero(row), repeats) for row in mask.cpu().numpy()]
    for layer, sample in np.ndindex(*costs.shape[:2]):
        query, column = linear_sum_assignment(costs[layer, sample][:, objects[sample]])
        place = np.full_like(query, layer), np.full_like(query, sample)
        rows.append(np.stack((*place, query, objects[sample][column])))
    pairs = np.concatenate(rows, axis=1) if rows else np.zeros((4, 0), np.int64)
    return Pairs(*torch.from_numpy(pairs).to(device))
