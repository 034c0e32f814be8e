"""Intervals and verdicts."""

import math

import numpy as np
import pytest
from scipy import stats

from kd_runner.report.statistics import Gain, estimate, gain, gap_closed, holm, verdicts

CONTROL, TREATED = [0.20, 0.31, 0.24, 0.27], [0.25, 0.33, 0.30, 0.29]


def test_the_interval_of_a_mean_is_students() -> None:
    """3 values of deviation 1 around 2: t(0.975, 2) = 4.3027, over the root of 3."""
    interval = estimate([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.half_width == pytest.approx(4.302652729911275 / math.sqrt(3))
    assert (interval.low, interval.high) == pytest.approx((2 - interval.half_width, 2 + interval.half_width))


def test_a_gain_is_the_paired_interval() -> None:
    interval = gain(CONTROL, TREATED)
    paired = stats.ttest_rel(TREATED, CONTROL).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((paired.low, paired.high))
    assert interval.mean == pytest.approx(np.mean(TREATED) - np.mean(CONTROL))


def test_the_p_value_is_the_paired_t_test() -> None:
    assert gain(CONTROL, TREATED).p_value == pytest.approx(stats.ttest_rel(TREATED, CONTROL).pvalue)


def test_pairs_see_what_two_separate_means_cannot() -> None:
    """The seeds differ by far more than the gain; each gains nearly the same."""
    control = [0.1, 0.5, 0.9]
    treated = [0.12, 0.5201, 0.9199]
    assert verdicts([gain(control, treated)]) == ["gain"]
    assert estimate(treated).low < estimate(control).high


def test_holm_by_hand() -> None:
    """Sorted .01, .03, .04 times 3, 2, 1 is .03, .06, .04; never below the one before. A nan is no test."""
    assert holm([0.04, math.nan, 0.01, 0.03]) == pytest.approx([0.06, math.nan, 0.03, 0.06], nan_ok=True)
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_an_arm_alone_gains_and_one_of_several_does_not() -> None:
    weak, strong = Gain(0.02, 0.018, 0.03), Gain(0.5, 0.1, 1e-4)
    assert verdicts([weak]) == ["gain"]
    assert verdicts([weak, strong, weak]) == [
        "no gain (after Holm's correction)", "gain", "no gain (after Holm's correction)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("control", "treated", "expected"),
    [
        ([0.2, 0.3, 0.4], [0.25, 0.36, 0.45], "gain"),
        ([0.25, 0.36, 0.45], [0.2, 0.3, 0.4], "loss"),
        ([0.2, 0.3, 0.4], [0.25, 0.26, 0.45], "no gain (the interval holds zero)"),
        ([0.2, 0.3, 0.4], [0.2, 0.3, 0.4], "no spread over the seeds: no verdict"),
        ([0.2, 0.3, 0.4], [0.3, 0.4, 0.5], "no spread over the seeds: no verdict"),
        ([0.25], [0.5], "one seed: no verdict"),
        ([0.2, 0.3], [0.3, math.nan], "not a number: no verdict"),
    ],
)
def test_verdicts(control: list[float], treated: list[float], expected: str) -> None:
    assert verdicts([gain(control, treated)]) == [expected]


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
