"""Intervals and verdicts."""

import math

import numpy as np
import pytest
from scipy import stats

from kd_runner.report.statistics import Estimate, estimate, gain, gap_closed, verdict

CONTROL, TREATED = [0.20, 0.31, 0.24, 0.27], [0.25, 0.33, 0.30, 0.29]


def test_the_interval_of_a_mean_is_students() -> None:
    """3 values of deviation 1 around 2: t(0.975, 2) = 4.3027, over the root of 3."""
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(4.302652729911275 / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx((2 - found.half_width, 2 + found.half_width))


def test_a_gain_is_the_paired_interval() -> None:
    found = gain(CONTROL, TREATED)
    paired = stats.ttest_rel(TREATED, CONTROL).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((paired.low, paired.high))
    assert found.mean == pytest.approx(np.mean(TREATED) - np.mean(CONTROL))


def test_pairs_see_what_two_separate_means_cannot() -> None:
    """The seeds differ by far more than the gain; each gains the same."""
    control = [0.1, 0.5, 0.9]
    treated = [0.12, 0.5201, 0.9199]
    assert verdict(gain(control, treated)) == "gain"
    assert estimate(treated).low < estimate(control).high


@pytest.mark.parametrize(
    ("mean", "half_width", "expected"),
    [
        (0.03, 0.02, "gain"),
        (0.03, 0.03, "no gain (the interval holds zero)"),
        (0.03, 0.05, "no gain (the interval holds zero)"),
        (-0.01, 0.05, "no gain (the interval holds zero)"),
        (-0.03, 0.02, "loss"),
        (0.0, 0.0, "no gain (the interval holds zero)"),
        (0.5, math.nan, "one seed: no verdict"),
    ],
)
def test_verdicts(mean: float, half_width: float, expected: str) -> None:
    assert verdict(Estimate(mean, half_width)) == expected


def test_one_seed_has_a_difference_and_no_verdict() -> None:
    found = gain([0.25], [0.5])
    assert found.mean == 0.25
    assert verdict(found) == "one seed: no verdict"


def test_sides_of_unlike_length_are_no_pairs() -> None:
    with pytest.raises(ValueError):
        gain([0.1, 0.2], [0.3])


@pytest.mark.parametrize(
    ("control", "treated", "teacher", "percent"),
    [(0.5, 0.75, 1.0, 50.0), (0.5, 0.5, 1.0, 0.0), (0.5, 0.25, 1.0, -50.0), (0.5, 1.125, 1.0, 125.0)],
)
def test_gap_closed(control: float, treated: float, teacher: float, percent: float) -> None:
    assert gap_closed(control, treated, teacher) == percent


@pytest.mark.parametrize("teacher", [0.5, 0.4])
def test_there_is_no_gap_to_a_teacher_that_is_no_better(teacher: float) -> None:
    assert math.isnan(gap_closed(0.5, 0.6, teacher))
