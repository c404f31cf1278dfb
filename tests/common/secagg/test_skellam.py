"""Skellam noise: Bessel's integers, the right distribution at every scale, and sums that stay in the family."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import Code, Refusal
from common.randomness import ReplayEntropy, SystemEntropy
from common.secagg.discrete import discrete_gaussian, symmetric_table
from common.secagg.skellam import half_weights, skellam, skellam_distance
from tests.exact_samplers import Exact, fits, poisson_chances, same_distribution


def chances(sigma: float, reach: int) -> dict[int, float]:
    return {k: float(stats.skellam.pmf(k, sigma**2 / 2, sigma**2 / 2)) for k in range(-reach, reach + 1)}


def test_the_oracle_itself_is_exact():
    """Must: match closed forms where they exist. A wrong oracle would prove nothing."""
    exact = Exact(1)
    for halves in (1, 2, 5):
        assert fits(np.array([exact.poisson(halves) for _ in range(20_000)]), poisson_chances(halves / 2, 30)) > 1e-4
    weights = {k: math.exp(-(k**2) / 18) for k in range(-40, 41)}
    drawn = np.array([exact.discrete_gaussian(3) for _ in range(10_000)])
    assert fits(drawn, {k: weight / sum(weights.values()) for k, weight in weights.items()}) > 1e-4


def test_draws_at_sigma_3_are_those_of_an_exact_sampler():
    exact = Exact(2)
    oracle = np.array([exact.skellam(9) for _ in range(20_000)])
    assert same_distribution(skellam(3.0, 300_000, ReplayEntropy(4, "skellam")), oracle) > 1e-4
    oracle = np.array([exact.discrete_gaussian(3) for _ in range(10_000)])
    assert same_distribution(discrete_gaussian(3.0, 300_000, ReplayEntropy(4, "gaussian")), oracle) > 1e-4


def test_the_test_tells_skellam_from_discrete_gaussian_noise_of_the_same_deviation():
    exact = Exact(3)
    oracle = np.array([exact.skellam(1) for _ in range(20_000)])
    assert same_distribution(discrete_gaussian(1.0, 300_000, ReplayEntropy(4)), oracle) < 1e-4


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0, 10.0, 47.3])
def test_draws_follow_the_exact_distribution(sigma):
    drawn = skellam(sigma, 200_000, ReplayEntropy(6, sigma))
    assert fits(drawn, chances(sigma, math.ceil(9 * sigma) + 3)) > 1e-4
    assert fits(drawn, chances(sigma * 1.03, math.ceil(9 * sigma) + 3)) < 1e-4


def bessel(k: int, x: Fraction) -> int:
    """2^600 · I_k(x), by its power series: Σ (x/2)^(2j + k) / (j! (j + k)!)."""
    half, j = x / 2, 0
    term = (half.numerator**k << 600) // (half.denominator**k * math.factorial(k))
    total = 0
    while term:
        total, j = total + term, j + 1
        term = term * half.numerator**2 // (half.denominator**2 * j * (j + k))
    return total


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0, 12.25])
def test_weights_are_bessel_functions_to_a_hundred_bits_and_leave_out_less_than_that(sigma):
    variance = Fraction(sigma) ** 2
    half = half_weights(variance)
    exact = [bessel(k, variance) for k in range(2 * len(half))]
    for k in range(len(half)):
        assert abs(Fraction(half[k] * exact[0], half[0] * exact[k]) - 1) < Fraction(1, 2**125)
    whole = 2 * sum(exact) - exact[0]
    assert 2 * sum(exact[len(half) :]) * 2**128 < whole


def test_the_lower_words_decide_where_the_upper_do_not():
    """An eight-bit upper half makes ties the rule; the distribution stays exact."""
    table, entropy = symmetric_table(half_weights(Fraction(9)), 8), ReplayEntropy(12)
    upper = entropy.words(50_000) & np.uint64(0xFF << 56)
    assert fits(table.reached(upper, entropy) + table.least, chances(3.0, 30)) > 1e-4


def test_sums_of_noise_are_noise_of_the_summed_variance():
    """What makes it fit for sums: nine sites of variance 1 give exactly the Skellam distribution of variance 9."""
    total = sum(skellam(1.0, 100_000, ReplayEntropy(7, site)) for site in range(9))
    assert fits(total, chances(3.0, 30)) > 1e-4


@settings(max_examples=10)
@given(st.floats(0.05, 3000.0))
def test_moments_are_those_of_the_distribution(sigma):
    values = skellam(sigma, 20_000, ReplayEntropy(2, sigma))
    if sigma >= 1:
        assert values.std() == pytest.approx(sigma, rel=0.04)
    assert abs(values.mean()) < 6 * sigma / math.sqrt(20_000)


@pytest.mark.parametrize("sigma", [0.01, 3.0, 300.0])
def test_the_distance_is_far_below_any_delta_and_grows_with_the_number_of_draws(sigma):
    assert 0 < skellam_distance(sigma, 10**8) < 1e-24
    assert skellam_distance(sigma, 2000) == pytest.approx(2 * skellam_distance(sigma, 1000))


@pytest.mark.parametrize("sigma", [0.0, -1.0, 1e-200, math.inf, math.nan, 2.0**15 * 1.01, True])
def test_scales_without_a_sampler_are_refused(sigma):
    with pytest.raises(Refusal, check=lambda error: error.code is Code.CONFIG_INVALID):
        skellam(sigma, 1, SystemEntropy())
