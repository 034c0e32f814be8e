"""Rows in the order of a score, as two engines that round differently rank them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[Any]


def paired(
    expected: Mapping[str, Array], got: Mapping[str, Array], ranked: Mapping[str, Sequence[str]]
) -> dict[str, Array]:
    """Outputs with their rows in the order of the expected ones, where the scores leave the order open.

    Scores that differ by less than twice what the engines do (the largest difference between the two ranked lists)
    may stand in either order. Such rows are matched by their content, so that a true difference stays one. Of rows as
    low as the last, either may have been left out: their content is taken for equal, their scores are still compared.

    Args:
        expected: outputs `(B, N, ...)` by name.
        got: the same outputs of another engine.
        ranked: score `(B, N)`, best first, to the outputs whose rows stand in its order.

    Returns:
        The outputs `got`, reordered.
    """
    matched = dict(got)
    for score, names in ranked.items():
        for name in names:
            matched[name] = matched[name].copy()
        for sample, (reference, output) in enumerate(zip(expected[score], got[score], strict=True)):
            slack = 2 * np.abs(reference - output).max(initial=0)
            for rows in np.split(np.arange(len(reference)), np.flatnonzero(reference[:-1] - reference[1:] > slack) + 1):
                last = len(reference) - 1 in rows
                order = rows if last else rows[_order(expected, got, names, sample, rows)]
                for name in names:
                    matched[name][sample, rows] = (expected if last else got)[name][sample, order]
    return matched


def _order(
    expected: Mapping[str, Array], got: Mapping[str, Array], names: Sequence[str], sample: int, rows: Array
) -> Array:
    """For each of `rows` of `expected`, which of those of `got` is the same."""
    away = np.zeros((len(rows), len(rows)))
    for name in names:
        reference, output = (x[name][sample, rows].reshape(len(rows), -1).astype(float) for x in (expected, got))
        away += np.abs(reference[:, None] - output[None]).sum(-1)
    return linear_sum_assignment(away)[1]
