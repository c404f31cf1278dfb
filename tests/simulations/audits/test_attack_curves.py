"""Areas and rates of attacks against closed forms, and what (epsilon, delta)-DP leaves of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

import simulations.audits.attack_curves
from common.errors import Refusal
from simulations.audits.attack_curves import auc, bootstrap, curve, hit_rate, largest_auc, largest_rate


def two(mu: float, count: int = 100_000):
    """Scores of a Gaussian mechanism of shift mu: of members and of others."""
    stream = np.random.default_rng(0)
    return mu + stream.normal(size=count), stream.normal(size=count)


@pytest.mark.parametrize(("rate", "expected"), [(0.001, 0.0183), (0.01, 0.0924), (0.1, 0.3891)])
def test_a_gaussian_mechanism_of_shift_one_has_the_rates_of_its_trade_off_curve(rate, expected):
    assert hit_rate(rate)(*two(1.0)) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("mu", [0.0, 0.5, 2.0])
def test_the_area_is_the_one_of_the_closed_form(mu):
    assert auc(*two(mu)) == pytest.approx(norm.cdf(mu / math.sqrt(2)), abs=0.005)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_the_area_is_the_one_of_scikit_learn_ties_included(members, others):
    labels = [1] * len(members) + [0] * len(others)
    expected = roc_auc_score(labels, [*members, *others])
    assert auc(np.array(members, float), np.array(others, float)) == pytest.approx(expected)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.floats(0, 0.99))
def test_no_more_others_than_allowed_pass(others, rate):
    """Must: count only members above the threshold. Must not: let more than that share of others pass it."""
    values = np.array(others, float)
    thresholds = [t for t in [-1.0, *values] if (values > t).mean() <= rate + 1e-9]
    members = np.arange(-1.0, 10.0)
    assert hit_rate(rate)(members, values) == (members > min(thresholds)).mean()


def test_scores_that_are_all_the_same_find_nobody():
    same = np.zeros(50)
    assert auc(same, same) == 0.5
    assert hit_rate(0.1)(same, same) == 0.0


def test_a_bootstrap_covers_the_truth_and_its_own_value(monkeypatch):
    monkeypatch.setattr(simulations.audits.attack_curves, "DRAWS", 300)
    stream, truth, covered = np.random.default_rng(1), norm.cdf(1 / math.sqrt(2)), 0
    for _ in range(20):
        members, others = 1 + stream.normal(size=120), stream.normal(size=120)
        found = bootstrap(members, others, lambda a, b: float((a > b.mean()).mean()), stream)
        assert found.low <= found.value <= found.high
        found = bootstrap(members[:40], others[:40], auc, stream)
        covered += found.low <= truth <= found.high
    assert covered >= 17


def test_a_narrower_level_gives_a_wider_interval():
    members, others = two(1.0, 100)
    wide, narrow = (bootstrap(members, others, auc, np.random.default_rng(0), level=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low <= narrow.value <= narrow.high < wide.high


@given(st.floats(0, 8), st.sampled_from([0.0, 1e-5, 0.01]), st.floats(0, 0.999))
def test_what_is_allowed_is_a_rate_that_grows_with_epsilon_and_holds_guessing(epsilon, delta, rate):
    allowed = largest_rate(rate, epsilon, delta)
    assert rate - 1e-9 <= allowed <= 1
    assert allowed <= largest_rate(rate, epsilon + 0.5, delta) + 1e-9


@given(st.floats(0, 8), st.sampled_from([0.0, 1e-5, 0.01]))
def test_the_largest_area_is_that_under_the_largest_rates(epsilon, delta):
    rates = np.linspace(0, 1, 20_001)
    under = np.trapezoid([largest_rate(float(rate), epsilon, delta) for rate in rates], rates)
    assert largest_auc(epsilon, delta) == pytest.approx(under, abs=1e-3)


def test_no_gaussian_mechanism_goes_beyond_what_its_epsilon_allows():
    members, others = two(1.0)
    allowed = [largest_rate(float(rate), 4.377, 1e-5) for rate in np.logspace(-3, -0.1, 20)]
    assert all(a <= b for a, b in zip(curve(members, others, np.logspace(-3, -0.1, 20)), allowed, strict=True))
    assert auc(members, others) < largest_auc(4.377, 1e-5)


@pytest.mark.parametrize("scores", [np.zeros(1), np.array([0.0, np.nan])])
def test_what_cannot_be_resampled_is_refused(scores):
    with pytest.raises(Refusal):
        bootstrap(scores, np.zeros(5), auc, np.random.default_rng(0))


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(Refusal):
        hit_rate(rate)
