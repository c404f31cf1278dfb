"""Jobs that were planned after looking at the results of others: a filter adds them up, at an order fixed before."""

from __future__ import annotations

import math
from dataclasses import replace

import dp_accounting
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from common.privacy.accounting import total_epsilon
from common.privacy.charges import Charge
from common.privacy.filter import best_order, filtered_epsilon
from common.privacy.plan import PrivacySettings, plan_counts, plan_training
from common.privacy.renyi import ORDERS, divergence
from common.privacy.spending import spending
from tests.common.privacy.test_plan import M2, PLACE

GAUSSIAN = Charge(mechanism="gaussian", q=0.1, sigma=1.5, steps=40)
FIRST = plan_training(PrivacySettings(**M2), **PLACE)
SECOND = plan_training(PrivacySettings(**{**M2, "epsilon": 1.0}), **PLACE)
COUNTS = plan_counts(PrivacySettings(**M2), cells=4, releases=3, quorum=4)


@pytest.mark.parametrize(("q", "sigma", "steps"), [(1.0, 5.0, 40), (0.01, 1.0, 1000), (0.2, 2.0, 100), (0.9, 0.8, 3)])
def test_the_divergence_is_that_of_the_accountant_of_dp_accounting(q: float, sigma: float, steps: int) -> None:
    charge = Charge(mechanism="gaussian", q=q, sigma=sigma, steps=steps)
    for order in (2, 5, 32, 256):
        accountant = RdpAccountant(orders=[order])
        accountant.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma)), steps)
        assert filtered_epsilon([charge], order, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)


def test_counts_cost_at_most_a_gaussian_of_their_size_and_nothing_hides_a_release_without_noise() -> None:
    counts = Charge(mechanism="discrete-gaussian", q=1.0, sigma=4.0, steps=1)
    assert divergence(counts, 6) == pytest.approx(6 / (2 * 16))
    assert divergence(replace(counts, terms=3), 6) >= divergence(counts, 6) * (1 - 1e-12)
    assert math.isinf(divergence(Charge(mechanism="none", q=1.0, sigma=0.0, steps=1), 6))


@examples(max_examples=25, deadline=None)
@given(st.floats(0.05, 1.0), st.floats(0.8, 8.0), st.integers(1, 200))
def test_the_filter_never_says_less_than_the_composition_of_what_was_fixed_in_advance(
    q: float, sigma: float, steps: int
) -> None:
    charge = Charge(mechanism="gaussian", q=q, sigma=sigma, steps=steps)
    order = best_order(charge, 1e-5)
    assert filtered_epsilon([charge], order, 1e-5) >= total_epsilon([charge], 1e-5) - 2e-3
    assert order in ORDERS


def test_the_order_follows_from_the_first_plan_alone() -> None:
    order = best_order(FIRST.charge(FIRST.releases), 1e-5)
    for later in (SECOND, replace(SECOND, noise_multiplier=0.5)):
        assert spending([(FIRST, 2), (later, 9)], 1e-5).orders == {"training records": order}


def test_one_plan_is_composed_exactly_however_often_it_runs_and_two_by_the_filter() -> None:
    one = spending([(FIRST, 12), (COUNTS, 1)], 1e-5)
    assert one.orders == {}
    assert spending([(FIRST, 5), (COUNTS, 1), (FIRST, 7)], 1e-5) == one
    assert one.nominal["train"] == total_epsilon([FIRST.charge(12)], 1e-5)
    both = spending([(FIRST, 12), (SECOND, 5), (COUNTS, 1)], 1e-5)
    composed = total_epsilon([FIRST.charge(12), SECOND.charge(5)], 1e-5)
    assert composed < both.nominal["train"] < 1.6 * composed
    assert both.nominal["holdout"] == one.nominal["holdout"]


def test_the_figure_only_grows() -> None:
    figures = [spending([(FIRST, 12), (SECOND, steps)], 1e-5).nominal["train"] for steps in (1, 2, 5, 30)]
    assert figures == sorted(figures)


def test_an_order_that_fits_the_first_plan_is_no_worse_than_its_neighbours() -> None:
    order = best_order(GAUSSIAN, 1e-5)
    here = filtered_epsilon([GAUSSIAN], order, 1e-5)
    assert all(here <= filtered_epsilon([GAUSSIAN], near, 1e-5) for near in (order - 1, order + 1) if near > 1)
