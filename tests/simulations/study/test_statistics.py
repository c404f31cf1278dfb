"""Intervals cover what they promise, corrections hold together, and the smallest difference is really found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy.stats import t, ttest_ind

from simulations.study.statistics import FEWEST_RESAMPLED, difference, estimate, holm, rate, smallest

VALUES = some.lists(some.floats(-10, 10).map(lambda x: round(x, 3)), min_size=2, max_size=12)


@given(values=VALUES)
def test_the_interval_is_student_s_by_hand(values: list[float]) -> None:
    made = estimate(values)
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    assert made.method == "t"
    assert made.low is not None
    assert made.high is not None
    assert made.low <= made.mean <= made.high
    assert (made.high - made.low) / 2 == pytest.approx(half, rel=1e-9, abs=1e-12)
    assert made.n == len(values)


def test_a_single_value_has_no_interval_and_equal_ones_an_empty_one() -> None:
    one, same = estimate([0.9]), estimate([0.1] * 5)
    assert (one.low, one.high, one.sd, one.detectable, one.method) == (None, None, None, None, "single")
    assert (one.interval.low, one.interval.high) == (-math.inf, math.inf)
    assert (same.low, same.high, same.sd, same.detectable) == (same.mean, same.mean, 0.0, 0.0)


@pytest.mark.parametrize("n", [3, 5, 20])
def test_intervals_cover_a_planted_mean_as_often_as_they_say(n: int) -> None:
    """Must: 95 % within 93 and 97 over a thousand studies. A bootstrap of so few values does not."""
    draw = np.random.default_rng(n)
    made = [estimate(list(draw.normal(0.9, 0.02, n))) for _ in range(1000)]
    covered = np.mean([each.interval.low <= 0.9 <= each.interval.high for each in made])
    assert 0.93 <= covered <= 0.97


def test_many_values_that_are_not_normal_are_resampled_and_always_alike() -> None:
    """One seed in ten breaks down: the interval reaches further to that side than to the other."""
    values = [0.9 + 0.001 * i for i in range(45)] + [0.1] * 5
    made = estimate(values)
    assert len(values) >= FEWEST_RESAMPLED
    assert made.method == "BCa"
    assert made.low is not None
    assert made.high is not None
    assert made.mean - made.low > 1.1 * (made.high - made.mean)
    assert estimate(values) == made
    assert estimate(values[-29:]).method == "t"


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_smallest_difference_is_found_in_four_cases_of_five(n: int) -> None:
    found = smallest(math.sqrt(2 / n), 2 * n - 2)
    draw = np.random.default_rng(1)
    first, second = draw.normal(0, 1, (4000, n)), draw.normal(found, 1, (4000, n))
    assert np.mean(ttest_ind(first, second, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.025)


def test_paired_differences_see_what_seeds_share() -> None:
    """The same seeds move both rows: paired, a small gain is plain; as two groups it is not."""
    shared = np.random.default_rng(0).normal(0, 0.05, 5)
    gain = np.array([0.010, 0.012, 0.009, 0.011, 0.008])
    found = difference(list(shared + gain - shared))
    assert found.p is not None
    assert found.p < 0.001
    assert ttest_ind(shared + gain, shared).pvalue > 0.3
    assert found.estimate.detectable is not None
    assert found.estimate.detectable < 0.005


def test_differences_without_spread_speak_by_their_signs() -> None:
    assert difference([0.0] * 5).p == 1.0
    assert difference([0.1] * 5).p == 0.0625
    assert difference([0.1]).p is None


def test_planted_nothing_is_hardly_ever_called_a_difference() -> None:
    draw = np.random.default_rng(5)
    p = [difference(list(row)).p or 0.0 for row in draw.normal(0, 1, (1000, 5))]
    assert np.mean(np.asarray(p) < 0.05) == pytest.approx(0.05, abs=0.02)
    heavy = [difference([*row, 40.0, -40.0, 41.0]).p or 0.0 for row in draw.normal(0, 1, (5, 40))]
    assert min(heavy) > 0.05


@given(p=some.lists(some.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_never_below_the_value_nor_above_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    for one, corrected in zip(p, adjusted, strict=True):
        assert one <= corrected <= min(1.0, len(p) * one) + 1e-15
    order = np.argsort(p, kind="stable")
    assert all(np.diff(np.asarray(adjusted)[order]) >= 0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_a_rate_of_no_failures_is_not_known_to_be_zero() -> None:
    none = rate(0, 5)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(0.4345, abs=1e-4)  # z^2 / (n + z^2)
    assert rate(5, 5).low == pytest.approx(1 - none.high)
