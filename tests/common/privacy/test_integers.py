"""Integer noise is as close to a Gaussian as the ledger says, checked by adding up the probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from common.errors import Refusal
from common.privacy.integers import gaussian_divergence, sum_distance, summed_gaussians
from common.privacy.mechanism import SAMPLER
from common.secagg.discrete import sampler_distance


def discrete(sigma, reach):
    weights = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def rounded(sigma, reach):
    edges = np.arange(-reach, reach + 1.0)
    return norm.sf(np.abs(edges) - 0.5, scale=sigma) - norm.sf(np.abs(edges) + 0.5, scale=sigma)


@pytest.mark.parametrize("sigma", [10.0, 17.5, 40.0, 150.0])
def test_the_divergence_bound_covers_the_true_divergence_and_is_not_far_from_it(sigma):
    reach = int(9 * sigma)
    p, q = discrete(sigma, reach), rounded(sigma, reach)
    ratio = (q - p) / p
    true = float((p * (ratio**2 / 2 - ratio**3 / 3)).sum())  # -log(1 + ratio); its linear term sums to 0
    assert true <= gaussian_divergence(sigma, 1) <= 6 * true
    assert gaussian_divergence(sigma, 50) == pytest.approx(50 * gaussian_divergence(sigma, 1))


def test_noise_too_small_for_the_bound_is_refused():
    for sigma in (9.9, 0.0, math.nan):
        with pytest.raises(Refusal, match="close enough"):
            gaussian_divergence(sigma, 1)


@pytest.mark.parametrize(("sigma", "terms"), [(1.0, 2), (0.8, 3), (1.5, 4)])
def test_a_sum_of_integer_noise_is_as_close_to_integer_noise_as_stated(sigma, terms):
    reach = 40
    one = discrete(sigma, reach)
    total = one
    for _ in range(terms - 1):
        total = np.convolve(total, one)
    half = (len(total) - 1) // 2
    ideal = discrete(sigma * math.sqrt(terms), half)
    core = np.abs(np.arange(-half, half + 1)) <= 6 * sigma * math.sqrt(terms)
    assert np.abs(np.log(total[core] / ideal[core])).max() <= sum_distance(sigma, terms)
    assert np.abs(total - ideal).sum() / 2 <= sum_distance(sigma, terms)


def test_one_term_is_no_sum_and_wide_noise_adds_up_exactly():
    assert sum_distance(0.5, 1) == 0.0
    assert sum_distance(100.0, 50) == 0.0
    assert sum_distance(0.01, 50) == 1.0


@pytest.mark.parametrize("sigma", [0.5, 3.0, 1e3, 1e5, 3e7])
def test_the_sampler_is_as_exact_as_plans_assume(sigma):
    assert sampler_distance(sigma, 1) <= SAMPLER


@pytest.mark.parametrize(("sigma", "terms"), [(0.9, 2), (2.0, 3), (6.0, 29), (40.0, 2)])
def test_the_sum_of_noise_is_convolved_exactly(sigma, terms):
    """Must: have every probability right, its tails included; be symmetric, since add and remove must cost the same."""
    each = sigma / math.sqrt(terms)
    one = discrete(each, math.ceil(14 * each) + 1)
    total = one
    for _ in range(terms - 1):
        total = np.convolve(total, one)
    half = (len(total) - 1) // 2
    found = summed_gaussians(sigma, terms)
    for outcome in range(-min(half, int(8 * sigma)), min(half, int(8 * sigma)) + 1):
        assert found[outcome] == pytest.approx(math.log(total[half + outcome]), abs=1e-9)
        assert found[outcome] == pytest.approx(found[-outcome], abs=1e-9)
    assert math.fsum(math.exp(chance) for chance in found.values()) == pytest.approx(1.0, abs=1e-12)
