"""What a few seeds can tell."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t


@dataclass(frozen=True)
class Estimate:
    """A mean, and how far its 95 % confidence interval reaches to each side (nan with fewer than two values)."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and Student's t interval of independent values."""
    mean = statistics.fmean(values)
    if len(values) < 2 or math.isnan(mean):
        return Estimate(mean, math.nan)
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean, float(student_t.ppf(0.975, len(values) - 1)) * spread)


def gain(control: Sequence[float], treated: Sequence[float]) -> Estimate:
    """Mean difference of pairs (the same seed on both sides) and its interval."""
    return estimate([after - before for before, after in zip(control, treated, strict=True)])


def verdict(difference: Estimate) -> str:
    """`gain`, `loss`, `no gain` where the interval holds zero, and no verdict from a single seed."""
    if math.isnan(difference.mean):
        return "not a number: no verdict"
    if math.isnan(difference.half_width):
        return "one seed: no verdict"
    if difference.low > 0:
        return "gain"
    return "loss" if difference.high < 0 else "no gain (the interval holds zero)"


def gap_closed(control: float, treated: float, teacher: float) -> float:
    """Percent of the way from the control to the teacher; nan where the teacher is no better than the control."""
    return 100 * (treated - control) / (teacher - control) if teacher > control else math.nan
