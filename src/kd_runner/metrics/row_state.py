"""Base class of metrics whose state is a table of rows."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class RowStateMetric(Metric):
    """Metric that keeps rows of numbers of all samples and computes its value from them at the end.

    Rows carry the number of their sample, so that parts of a set, merged in any order, give what one process gives.
    A row of a subclass is float32; sample numbers must be below 2^24.

    Args:
        states: names of the states; each is a list of flat tensors.
    """

    higher_is_better = True
    full_state_update = False

    def __init__(self, *states: str):
        super().__init__()
        for name in states:
            # Flat tensors, because torchmetrics uses an empty vector for a process without samples.
            self.add_state(name, [], dist_reduce_fx="cat")

    @staticmethod
    def flat(state: list[Tensor] | Tensor) -> Tensor:
        """All numbers of a state, one after the other.

        Args:
            state: list of flat tensors, or one.

        Returns:
            A flat tensor.
        """
        return dim_zero_cat(state) if len(state) else torch.zeros(0)

    @classmethod
    def table(cls, state: list[Tensor] | Tensor, columns: int) -> NDArray[Any]:
        """The rows of a state.

        Args:
            state: list of flat tensors, or one.
            columns: numbers of a row.

        Returns:
            (n, columns) float64, sorted by the first column, the number of the sample.
        """
        rows = cls.flat(state).reshape(-1, columns).double().cpu().numpy()
        return rows[np.argsort(rows[:, 0], kind="stable")]
