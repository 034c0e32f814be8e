"""Means, paired gains and verdicts over a few seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.95
"""Confidence of every interval; a verdict needs a p-value below 1 - LEVEL."""


@dataclass(frozen=True)
class Estimate:
    """A mean with the half-width of its 95 % confidence interval (nan with fewer than two values)."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


@dataclass(frozen=True)
class Gain(Estimate):
    """Mean paired difference of two arms, with the p-value of the two-sided paired t-test.

    The p-value is nan where there is no test: fewer than two seeds, or the same difference for every seed.
    """

    p_value: float = math.nan


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and Student's t interval of independent values.

    Args:
        values: the values, at least one, in any unit.

    Returns:
        Mean and half-width of the 95 % interval, in the unit of the values.

    Raises:
        statistics.StatisticsError: there are no values.
    """
    mean = statistics.fmean(values)
    if len(values) < 2 or math.isnan(mean):
        return Estimate(mean, math.nan)
    standard_error = statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean, float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * standard_error)


def gain(control: Sequence[float], treated: Sequence[float]) -> Gain:
    """Mean of the paired differences `treated - control`.

    Args:
        control: scores of the control arm, one per seed.
        treated: scores of the other arm, for the same seeds in the same order.

    Returns:
        Mean, half-width of its 95 % interval, both in the unit of the scores, and the p-value.

    Raises:
        ValueError: the two differ in length.
    """
    differences = [after - before for before, after in zip(control, treated, strict=True)]
    interval = estimate(differences)
    if math.isnan(interval.half_width) or not _has_spread(interval):
        return Gain(interval.mean, interval.half_width)
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1))
    t_statistic = abs(interval.mean) * quantile / interval.half_width
    return Gain(interval.mean, interval.half_width, 2 * float(stats.t.sf(t_statistic, len(differences) - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values; nan entries are no tests and stay nan.

    With the m p-values sorted upwards, `adjusted_i = max over j <= i of min(1, (m - j + 1) * p_j)`.

    Source: Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure.

    Args:
        p_values: p-values in [0, 1], one per test, or nan.

    Returns:
        The adjusted p-values in [0, 1], in the same order.
    """
    tests = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(tests):
        largest = max(largest, min(1.0, (len(tests) - rank) * p))
        adjusted[i] = largest
    return adjusted


def verdicts(gains: Sequence[Gain]) -> list[str]:
    """A verdict for each of several arms against one control, Holm-corrected over all of them.

    Args:
        gains: gain of each arm over the control.

    Returns:
        Per arm `gain`, `loss`, `no gain (...)`, or why there is no verdict.
    """
    adjusted = holm([one.p_value for one in gains])
    return [_verdict(one, p) for one, p in zip(gains, adjusted)]


def harder(gains: Sequence[Gain], gain_verdicts: Sequence[str]) -> int:
    """Of the gains of one arm over several controls, the number of the one that claims least.

    It is one without the verdict `gain` if there is any, among those the one with the lowest lower bound (the lowest
    mean where there is no interval). So the claim is a gain only where it is one over every control, which needs no
    further correction (Berger 1982, Multiparameter Hypothesis Testing and Acceptance Sampling).

    Args:
        gains: gain over each control, at least one.
        gain_verdicts: the verdict on each, as `verdicts` gives it.

    Returns:
        Index into `gains`.

    Raises:
        ValueError: there are no gains.
    """

    def claim(number: int) -> tuple[bool, float]:
        one = gains[number]
        low = one.mean if math.isnan(one.half_width) else one.low
        return gain_verdicts[number] == "gain", -math.inf if math.isnan(low) else low

    return min(range(len(gains)), key=claim)


def _verdict(difference: Gain, adjusted_p: float) -> str:
    if math.isnan(difference.mean):
        return "not a number: no verdict"
    if math.isnan(difference.half_width):
        return "one seed: no verdict"
    if not _has_spread(difference):
        return "no spread over the seeds: no verdict"
    if adjusted_p < 1 - LEVEL:
        return "gain" if difference.mean > 0 else "loss"
    if difference.p_value < 1 - LEVEL:
        return "no gain (after Holm's correction)"
    return "no gain (the interval holds zero)"


def _has_spread(interval: Estimate) -> bool:
    """Differences that are equal up to rounding carry no information about chance."""
    return interval.half_width > 1e-9


def gap_closed(control: float, treated: float, teacher: float) -> float:
    """Percent of the way from the control to the teacher; nan where the teacher is no better than the control.

    Args:
        control: score of the control, higher is better.
        treated: score of the other arm, in the same unit.
        teacher: score of the teacher, in the same unit.

    Returns:
        The percentage: 0 at the control, 100 at the teacher; below 0 and above 100 beyond them.
    """
    return 100 * (treated - control) / (teacher - control) if teacher > control else math.nan
