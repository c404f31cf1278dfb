"""Discrete Gaussian noise: the right distribution at every scale, from entropy words alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import Code, Refusal
from common.randomness import ReplayEntropy, SystemEntropy
from common.secagg import discrete
from common.secagg.discrete import discrete_gaussian, plan, sampler_distance, symmetric_table

COUNT = 200_000


def weights(sigma: float, reach: int) -> np.ndarray:
    """Exact probabilities of -reach … reach to double precision."""
    k = np.arange(-reach, reach + 1)
    mass = np.exp(-(k**2) / (2 * sigma**2))
    return mass / mass.sum()


def p_value(values: np.ndarray, sigma: float) -> float:
    """Chi-square test of draws against the exact distribution, in classes of at least 50 expected draws."""
    reach = math.ceil(12 * sigma) + 2
    cumulative = np.cumsum(weights(sigma, reach))
    classes = min(60, 2 * reach - 1)
    edges = np.unique(np.searchsorted(cumulative, np.linspace(0, 1, classes + 1)[1:-1]))
    expected = np.diff(np.concatenate([[0.0], cumulative[edges], [1.0]])) * values.size
    observed = np.bincount(np.searchsorted(edges, values + reach, side="left"), minlength=edges.size + 1)
    keep = expected >= 50
    observed, expected = (
        np.append(observed[keep], observed[~keep].sum()),
        np.append(expected[keep], expected[~keep].sum()),
    )
    if expected[-1] < 1:
        observed, expected = observed[:-1], expected[:-1]
    return float(stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0, 30.0, 300.7, 2048.0, 2049.0, 30_000.0, 1e5, 1e6])
def test_draws_follow_the_exact_distribution(sigma):
    assert p_value(discrete_gaussian(sigma, COUNT, ReplayEntropy(5, sigma)), sigma) > 1e-4


@pytest.mark.parametrize("sigma", [1.0, 50.0, 3000.0])
def test_the_test_itself_notices_a_scale_that_is_off_by_two_percent(sigma):
    assert p_value(discrete_gaussian(sigma * 1.02, COUNT, ReplayEntropy(5, sigma)), sigma) < 1e-4


def test_two_level_draws_follow_the_exact_distribution_integer_by_integer(monkeypatch):
    """A small σ forced into two levels: a comb at the step would show in single integers."""
    monkeypatch.setattr(discrete, "_ONE_TABLE", 16)
    discrete._plan.cache_clear()
    sigma = 40.0
    values = discrete_gaussian(sigma, COUNT, ReplayEntropy(9))
    assert plan(sigma).step == 3
    discrete._plan.cache_clear()
    reach = 100
    exact = weights(sigma, 600)[600 - reach : 601 + reach] * COUNT
    observed = np.bincount(values[np.abs(values) <= reach] + reach, minlength=2 * reach + 1)
    assert stats.chisquare(observed, exact * observed.sum() / exact.sum()).pvalue > 1e-4
    for step in (2, 3):
        classes = np.bincount(values % step, minlength=step)
        assert stats.chisquare(classes).pvalue > 1e-4


@pytest.mark.parametrize("sigma", [12.5, 40.0])
def test_the_two_levels_multiply_out_to_the_exact_distribution(monkeypatch, sigma):
    """Convolution of both tables' exact weights against the exact distribution: the theorem, in numbers."""
    monkeypatch.setattr(discrete, "_ONE_TABLE", 8)
    discrete._plan.cache_clear()
    chosen = plan(sigma)
    discrete._plan.cache_clear()
    fine, coarse = (np.diff(np.append(0.0, table.high / 2.0**64)) for table in (chosen.fine, chosen.coarse))
    spread = np.zeros((coarse.size - 1) * chosen.step + 1)
    spread[:: chosen.step] = coarse
    both = np.convolve(fine, spread)
    least = chosen.fine.least + chosen.step * chosen.coarse.least
    k = np.arange(least, least + both.size)
    exact = np.exp(-(k**2) / (2 * sigma**2))
    assert np.abs(both - exact / exact.sum()).sum() < 1e-13


def test_the_lower_words_decide_where_the_upper_do_not():
    """An eight-bit upper half makes ties the rule; the distribution stays exact."""
    table = symmetric_table(discrete._half_weights(discrete.Fraction(9)), 8)
    entropy = ReplayEntropy(11)
    upper = entropy.words(30_000) & np.uint64(0xFF << 56)
    assert p_value(table.reached(upper, entropy) + table.least, 3.0) > 1e-4


def test_the_same_entropy_gives_the_same_draws_and_another_gives_others():
    first, second, third = (
        discrete_gaussian(1e5, 50, entropy).tolist()
        for entropy in (ReplayEntropy(1), ReplayEntropy(1), ReplayEntropy(2))
    )
    assert first == second != third


@settings(max_examples=15)
@given(st.floats(0.05, 1e5))
def test_moments_are_those_of_the_distribution(sigma):
    values = discrete_gaussian(sigma, 20_000, ReplayEntropy(2, sigma))
    if sigma >= 1:
        assert values.std() == pytest.approx(sigma, rel=0.04)
    assert abs(values.mean()) < 6 * sigma / math.sqrt(20_000)


@pytest.mark.parametrize("sigma", [0.01, 3.0, 3e4, 1e7])
def test_the_distance_is_far_below_any_delta_and_grows_with_the_number_of_draws(sigma):
    assert 0 < sampler_distance(sigma, 10**8) < 1e-24
    assert sampler_distance(sigma, 2000) == pytest.approx(2 * sampler_distance(sigma, 1000))


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan, 2.0**30 * 1.01, True])
def test_scales_without_a_sampler_are_refused(sigma):
    with pytest.raises(Refusal, check=lambda error: error.code is Code.CONFIG_INVALID):
        discrete_gaussian(sigma, 1, SystemEntropy())


def test_no_draws_are_no_draws():
    assert discrete_gaussian(10.0, 0, SystemEntropy()).size == 0
