"""Epsilon equals published vectors, another accountant, and closed forms; and is never too small."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from common.errors import Refusal
from common.privacy.accounting import (
    ONLINE,
    REPORT,
    epsilon,
    person_epsilon,
    sigma_for,
    total_epsilon,
)
from common.privacy.charges import Charge, total_distance

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "privacy.json").read_text())
ROWS = VECTORS["gaussian"]


def gaussian(q, sigma, steps, **more):
    return Charge(mechanism="gaussian", q=q, sigma=sigma, steps=steps, **more)


def analytic(mu, delta):
    """Epsilon of a Gaussian mechanism of sensitivity over deviation mu (Balle and Wang 2018, theorem 8)."""
    return brentq(lambda e: norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu) - delta, 1e-9, 200)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_epsilon_equals_the_published_vectors(row):
    arguments = {name: row[name] for name in ("q", "sigma", "steps", "delta")}
    report, online = epsilon(**arguments, interval=REPORT), epsilon(**arguments, interval=ONLINE)
    assert report == pytest.approx(row["epsilon"], abs=0.002)
    assert online == pytest.approx(row["epsilon"], abs=0.005)
    assert online >= report - 0.001


@pytest.mark.parametrize("row", [ROWS[0], ROWS[4], ROWS[6], ROWS[9]], ids=str)
def test_epsilon_agrees_with_the_accountant_of_opacus(row):
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(row["sigma"], row["q"], row["steps"])]
    found = epsilon(q=row["q"], sigma=row["sigma"], steps=row["steps"], delta=row["delta"])
    assert found == pytest.approx(accountant.get_epsilon(row["delta"], eps_error=0.001), abs=0.003)


@pytest.mark.parametrize(("sigma", "steps"), [(5.0, 1), (20.0, 100), (1.0, 1), (40.0, 1000)])
def test_epsilon_without_sampling_equals_the_closed_form(sigma, steps):
    found = epsilon(q=1.0, sigma=sigma, steps=steps, delta=1e-5)
    assert found == pytest.approx(analytic(math.sqrt(steps) / sigma, 1e-5), abs=1e-3)
    assert found >= analytic(math.sqrt(steps) / sigma, 1e-5) - 1e-6


def test_different_plans_compose_as_the_vector_says_in_any_order():
    charges = [gaussian(*row) for row in VECTORS["mixed"]["charges"]]
    for delta, value in VECTORS["mixed"]["epsilon"].items():
        assert total_epsilon(charges, float(delta)) == pytest.approx(value, abs=0.002)
    assert total_epsilon(charges[::-1], 1e-5) == total_epsilon(charges, 1e-5)


def test_equal_steps_cost_the_same_in_one_entry_or_in_many():
    assert total_epsilon([gaussian(0.1, 2.0, 1)] * 50, 1e-5) == total_epsilon([gaussian(0.1, 2.0, 50)], 1e-5)


@pytest.mark.parametrize("row", VECTORS["group"], ids=str)
def test_a_person_with_several_records_pays_the_group_figure(row):
    for records, value in zip(row["records"][:3], row["epsilon"], strict=False):
        found = person_epsilon(
            q=row["q"],
            sigma=row["sigma"],
            steps=row["steps"],
            delta=1e-5,
            records=records,
            interval=1e-3 if records < 4 else 2e-3,
        )
        assert found == pytest.approx(value, rel=0.003, abs=0.005)


def test_no_release_costs_nothing_and_a_plain_release_everything():
    plain = Charge(mechanism="none", q=1.0, sigma=0.0, steps=1)
    assert total_epsilon([], 1e-5) == 0.0
    assert total_epsilon([gaussian(0.1, 1.0, 0)], 1e-5) == 0.0
    assert total_epsilon([gaussian(0.1, 1.0, 3), plain], 1e-5) == math.inf


def test_distance_is_paid_from_delta():
    """Must: cost more the larger the distance. Must not: hide one that is larger than delta."""
    exact = total_epsilon([gaussian(0.2, 2.0, 10)], 1e-5)
    close = total_epsilon([gaussian(0.2, 2.0, 10, distance=1e-8)], 1e-5)
    again = total_epsilon([gaussian(0.2, 2.0, 10)], 1e-5 - (1 + math.exp(close)) * 1e-7)
    assert exact < close == pytest.approx(again, abs=1e-6)
    assert total_epsilon([gaussian(0.2, 2.0, 10, distance=1e-5)], 1e-5) == math.inf
    assert total_distance([gaussian(0.2, 2.0, 10, distance=1e-8)]) == pytest.approx(1e-7)


def test_divergences_add_before_the_root_is_taken():
    assert total_distance([gaussian(1.0, 1.0, 100, divergence=2e-12)]) == pytest.approx(1e-5)


def test_counts_cost_what_the_discrete_gaussian_costs_exactly():
    """The privacy loss of integer noise, summed by hand over the integers, gives the same delta."""
    sigma, delta = 2.5, 1e-5
    found = total_epsilon([Charge(mechanism="discrete-gaussian", q=1.0, sigma=sigma, steps=1)], delta)
    ks = range(-60, 61)
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in ks]
    p = {k: w / sum(weights) for k, w in zip(ks, weights, strict=True)}
    excess = sum(max(0.0, p[k] - math.exp(found) * p.get(k + 1, 0.0)) for k in ks)
    assert excess <= delta
    assert excess == pytest.approx(delta, rel=0.01)


@pytest.mark.parametrize(("target", "q", "steps"), [(1.0, 0.01, 1000), (3.0, 0.1, 100), (20.0, 0.2, 20), (0.05, 1, 1)])
def test_calibrated_noise_is_enough_and_not_more_than_needed(target, q, steps):
    sigma = sigma_for(epsilon=target, q=float(q), steps=steps, delta=1e-5)
    assert round(sigma, 4) == sigma
    assert epsilon(q=float(q), sigma=sigma, steps=steps, delta=1e-5, interval=ONLINE) <= target
    assert epsilon(q=float(q), sigma=sigma - 0.0001, steps=steps, delta=1e-5, interval=ONLINE) > target


@settings(max_examples=12, deadline=None)
@given(st.floats(0.01, 1.0), st.floats(0.7, 8.0), st.integers(1, 60))
def test_more_noise_and_fewer_steps_never_cost_more(q, sigma, steps):
    here = total_epsilon([gaussian(q, sigma, steps)], 1e-5, 1e-3)
    assert total_epsilon([gaussian(q, sigma * 1.5, steps)], 1e-5, 1e-3) <= here + 1e-3
    assert total_epsilon([gaussian(q, sigma, steps + 10)], 1e-5, 1e-3) >= here - 1e-3


BAD = {
    "q": [0.0, -0.1, 1.1, math.nan, math.inf, True],
    "sigma": [0.0, -1.0, math.nan, math.inf, 0.001],
    "steps": [0, -1, 2.5, True, 10**8],
    "delta": [0.0, 1.0, 2.0, -1e-5, math.nan],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_an_argument_outside_its_range_is_refused_by_name(name, value):
    with pytest.raises(Refusal, match=name):
        epsilon(**{"q": 0.1, "sigma": 1.0, "steps": 10, "delta": 1e-5, name: value})


def test_an_epsilon_that_no_noise_reaches_is_refused():
    with pytest.raises(Refusal, match="no noise multiplier"):
        sigma_for(epsilon=1e-9, q=1.0, steps=10**4, delta=1e-12)


def counts(sigma, terms, steps):
    return Charge(mechanism="discrete-gaussian", q=1.0, sigma=sigma, steps=steps, terms=terms)


def test_noise_in_several_parts_costs_what_its_exact_sum_costs():
    """Must: agree with one discrete Gaussian where the parts are wide, and not where they are too narrow for that."""
    for sigma in (2.0, 8.0):
        alone = total_epsilon([counts(sigma, 1, 3)], 1e-5)
        assert total_epsilon([counts(sigma, 2, 3)], 1e-5) == pytest.approx(alone, abs=2e-3)
    assert abs(total_epsilon([counts(0.6, 2, 1)], 1e-5) - total_epsilon([counts(0.6, 1, 1)], 1e-5)) > 0.5


def test_counts_can_be_released_again_and_again():
    """Must not: call the third release of little noise infinitely dear, as a distance paid from delta would."""
    spent = [total_epsilon([counts(1.98, 2, steps)], 1e-5) for steps in (1, 3, 9)]
    assert spent == sorted(spent)
    assert spent[-1] < 4 * spent[0]
