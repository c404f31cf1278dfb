"""Rényi curves of summed integer noise: never below the true divergence, never below that of a Gaussian."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.errors import Refusal
from common.privacy.integers import summed_gaussians
from common.privacy.renyi import ORDERS, Shift, discrete_gaussian_curve, epsilon_of, skellam_curve

CURVES = {"discrete-gaussian": discrete_gaussian_curve, "skellam": skellam_curve}


def divergence(order: int, log_p: np.ndarray, shift: int) -> float:
    """Rényi divergence of a distribution over integers from itself moved by `shift`, added up."""
    terms = order * log_p[:-shift] - (order - 1) * log_p[shift:]
    peak = terms.max()
    return float((peak + math.log(np.exp(terms - peak).sum())) / (order - 1))


def skellam_logs(variance: float, reach: int) -> np.ndarray:
    return np.log(stats.skellam.pmf(np.arange(-reach, reach + 1), variance / 2, variance / 2))


@pytest.mark.parametrize(("sigma", "terms"), [(0.5, 2), (0.7, 3), (1.0, 4), (2.0, 5), (6.0, 1)])
@pytest.mark.parametrize("shift", [1, 2])
def test_the_gaussian_curve_is_never_below_the_true_divergence_of_a_sum(sigma, terms, shift):
    chances = summed_gaussians(sigma * math.sqrt(terms), terms)
    logs = np.array([chances[k] for k in sorted(chances)])
    curve = discrete_gaussian_curve(Shift(norm=shift, lanes=1, sigma=sigma, terms=terms))
    for order in (2, 3, 5, 8):
        true = divergence(order, logs, shift)
        assert true <= curve[ORDERS.index(order)] * (1 + 1e-9)
        if sigma >= 2:
            assert curve[ORDERS.index(order)] == pytest.approx(true, rel=1e-6)


@pytest.mark.parametrize(("variance", "reach"), [(4.0, 25), (25.0, 50), (400.0, 160)])
@pytest.mark.parametrize("shift", [1, 2, 3])
def test_the_skellam_curve_is_never_below_the_true_divergence_and_not_far_above_it(variance, reach, shift):
    curve = skellam_curve(Shift(norm=shift, lanes=1, sigma=math.sqrt(variance / 4), terms=4))
    for order in (2, 3, 4):
        true = divergence(order, skellam_logs(variance, reach), shift)
        assert true <= curve[ORDERS.index(order)] * (1 + 1e-9)
        if variance == 400:
            assert curve[ORDERS.index(order)] <= 1.02 * true


@given(
    kind=st.sampled_from(sorted(CURVES)),
    norm=st.floats(1.0, 1e6),
    lanes=st.integers(1, 2**24),
    multiplier=st.floats(0.3, 100.0),
    terms=st.integers(1, 1000),
    releases=st.integers(1, 1000),
    delta=st.sampled_from([1e-3, 1e-5, 1e-9]),
)
def test_epsilon_is_never_below_that_of_a_gaussian_of_the_same_deviation(
    kind, norm, lanes, multiplier, terms, releases, delta
):
    """dp-accounting's own figure for a Gaussian at the same orders is the floor."""
    shift = Shift(norm=norm, lanes=lanes, sigma=multiplier * norm / math.sqrt(terms), terms=terms)
    event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(multiplier), releases)
    gaussian = RdpAccountant(ORDERS).compose(event).get_epsilon(delta)
    assert epsilon_of(releases * CURVES[kind](shift), delta, 0.0) >= gaussian * (1 - 1e-9)


@pytest.mark.parametrize("kind", CURVES)
def test_more_noise_or_more_sites_that_add_it_never_cost_more(kind):
    curve = CURVES[kind]
    for sigma in (0.4, 1.0, 30.0):
        for terms in (1, 2, 50):
            base = curve(Shift(norm=5.0, lanes=100, sigma=sigma, terms=terms))
            assert (curve(Shift(norm=5.0, lanes=100, sigma=2 * sigma, terms=terms)) <= base).all()
            assert (curve(Shift(norm=6.0, lanes=100, sigma=sigma, terms=terms)) >= base).all()
    wide = [curve(Shift(norm=5.0, lanes=100, sigma=30.0, terms=terms)) for terms in (1, 2, 50)]
    assert (np.diff(wide, axis=0) < 0).all()


def test_many_narrow_terms_cost_more_than_their_variance_says():
    """Must: charge that sums of narrow discrete Gaussians are not discrete Gaussians."""
    narrow = discrete_gaussian_curve(Shift(norm=5.0, lanes=100, sigma=0.4, terms=100))
    one = discrete_gaussian_curve(Shift(norm=5.0, lanes=100, sigma=4.0, terms=1))
    assert (narrow > one + 1000).all()


def test_the_curves_are_those_of_the_papers_by_hand():
    """Norm 5 over 4 lanes (L1 norm 10), 2 terms of deviation 3 (variance 18), order 3."""
    shift, place = Shift(norm=5.0, lanes=4, sigma=3.0, terms=2), ORDERS.index(3)
    assert shift.length == 10.0
    assert Shift(norm=2.0, lanes=100, sigma=3.0, terms=2).length == 4.0
    skellam = 3 * 25 / 36 + min((5 * 25 + 60) / (4 * 18**2), 30 / 36)
    assert skellam_curve(shift)[place] == pytest.approx(skellam, rel=1e-12)
    coarse = Shift(norm=5.0, lanes=4, sigma=0.1, terms=2)
    tau = 10 * math.exp(-2 * math.pi**2 * 0.01 / 2)
    square, length = 25 / 0.02, 10 / math.sqrt(0.02)
    options = (
        1.5 * square + 4 * tau,
        1.5 * (square + 2 * length * tau + 4 * tau**2),
        1.5 * (square**0.5 + 2 * tau) ** 2,
    )
    assert discrete_gaussian_curve(coarse)[place] == pytest.approx(min(options), rel=1e-12)


def test_orders_are_whole_numbers_above_one():
    assert all(isinstance(order, int) and order > 1 for order in ORDERS)
    assert list(ORDERS) == sorted(set(ORDERS))


def test_a_distance_from_the_ideal_noise_is_paid_from_delta():
    curve = discrete_gaussian_curve(Shift(norm=1.0, lanes=10, sigma=2.0, terms=4))
    exact = epsilon_of(curve, 1e-5, 0.0)
    paid = epsilon_of(curve, 1e-5, 1e-6)
    assert exact < paid == pytest.approx(epsilon_of(curve, 1e-5 - (1 + math.exp(paid)) * 1e-6, 0.0), abs=1e-3)
    assert epsilon_of(curve, 1e-5, 1e-4) == math.inf


def test_noise_of_no_use_costs_everything_and_a_delta_outside_its_range_is_refused():
    assert epsilon_of(np.full(len(ORDERS), math.inf), 1e-5, 0.0) == math.inf
    for delta in (0.0, 1.0, math.nan):
        with pytest.raises(Refusal):
            epsilon_of(np.ones(len(ORDERS)), delta, 0.0)
