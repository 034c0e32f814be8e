"""One-to-one matching of predictions to objects (Carion et al., "DETR", ECCV 2020, section 3.1)."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_WORST = 1e6  # replaces costs that are not finite


class Pairs(NamedTuple):
    """P matched pairs: decoder layer, sample, query and object of each, all (P,) int64."""

    layer: Tensor
    sample: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(cost: Tensor, mask: Tensor, repeats: int = 1) -> Pairs:
    """Find the cheapest assignment in every decoder layer of every sample.

    Args:
        cost: (L, B, Q, M); values that are not finite count as the worst.
        mask: objects (B, M) bool, False for padding, which is matched to nothing.
        repeats: number of queries matched to each object. Of more than Q copies of objects, the cheapest Q are matched.

    Returns:
        The matched pairs.
    """
    device, rows = cost.device, []
    costs = cost.float().nan_to_num(_WORST, _WORST, -_WORST).cpu().numpy()  # one transfer for all layers
    objects = [np.tile(np.flatnonzero(row), repeats) for row in mask.cpu().numpy()]
    for layer, sample in np.ndindex(*costs.shape[:2]):
        query, column = linear_sum_assignment(costs[layer, sample][:, objects[sample]])
        numbers = np.full_like(query, layer), np.full_like(query, sample)
        rows.append(np.stack((*numbers, query, objects[sample][column])))
    pairs = np.concatenate(rows, axis=1) if rows else np.zeros((4, 0), np.int64)
    return Pairs(*torch.from_numpy(pairs).to(device))
