"""Lower bounds against published vectors, their monotony, and the rate at which they may be wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from common.errors import Refusal
from simulations.audits.lower_bounds import (
    Guesses,
    chance,
    clopper_pearson,
    from_rates,
    gaussian_epsilon,
    gaussian_shift,
    one_run,
    one_run_gaussian,
)


def game(canaries: int, made: int, right: int) -> Guesses:
    return Guesses(canaries=canaries, made=made, right=right)


@pytest.mark.parametrize(
    ("canaries", "made", "right", "delta", "epsilon"),
    [
        (1000, 1000, 500, 0.0, 0.0), (1000, 1000, 600, 0.0, 0.297468), (1000, 1000, 750, 0.0, 0.976667),
        (1000, 1000, 750, 1e-5, 0.976367), (1000, 100, 99, 1e-5, 3.002832), (1000, 100, 100, 0.0, 3.492965),
        (1000, 100, 100, 1e-5, 3.465376), (5000, 500, 480, 1e-5, 2.783021), (10000, 1000, 1000, 1e-5, 5.529350),
    ],
)  # fmt: skip
def test_the_one_run_bound_is_the_one_of_other_implementations(canaries, made, right, delta, epsilon):
    """Values of jax_privacy 2.0, `_epsilon_one_run`, at 95 %."""
    assert one_run(game(canaries, made, right), delta) == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.parametrize(
    ("canaries", "made", "right", "epsilon"),
    [(1000, 1000, 750, 1.8189), (1000, 100, 100, 5.5490), (10000, 1000, 1000, 8.9877)],
)
def test_the_bound_for_gaussian_mechanisms_is_the_one_of_other_implementations(canaries, made, right, epsilon):
    assert one_run_gaussian(game(canaries, made, right), 1e-5) == pytest.approx(epsilon, abs=1e-4)


@pytest.mark.parametrize(("right", "epsilon"), [(75, 0.70), (95, 2.17)])
def test_a_hundred_guesses_without_delta_give_the_closed_form(right, epsilon):
    found = one_run(game(100, 100, right), 0.0)
    assert found == pytest.approx(epsilon, abs=0.005)
    assert binom.sf(right - 1, 100, 1 / (1 + math.exp(-found))) == pytest.approx(0.05, abs=1e-6)


@given(made=st.integers(1, 400), share=st.floats(0, 1), delta=st.sampled_from([0.0, 1e-6, 1e-3]))
def test_more_right_guesses_never_prove_less_and_more_delta_never_more(made, share, delta):
    right = round(share * (made - 1))
    low, high = (one_run(game(500, made, each), delta) for each in (right, right + 1))
    assert 0 <= low <= high + 1e-9
    assert one_run(game(500, made, right), 2 * delta) <= low + 1e-9


@given(
    made=st.integers(1, 200), share=st.floats(0, 1), epsilon=st.floats(0, 20), delta=st.sampled_from([0.0, 1e-5, 0.01])
)
def test_the_chance_is_a_probability_that_grows_with_what_is_allowed(made, share, epsilon, delta):
    one = game(200, made, round(share * made))
    assert 0 <= chance(one, epsilon, delta) <= 1
    assert chance(one, epsilon, 0.0) <= chance(one, epsilon + 1, 0.0) + 1e-12
    assert chance(one, epsilon, 0.0) <= chance(one, epsilon, delta) + 1e-12


def test_the_worst_of_the_term_with_delta_is_the_one_by_hand():
    one, q = game(50, 20, 15), 1 / (1 + math.exp(-1.0))
    by_hand = max((binom.cdf(14, 20, q) - binom.cdf(14 - i, 20, q)) / i for i in range(1, 16))
    assert chance(one, 1.0, 1e-3) == pytest.approx(binom.sf(14, 20, q) + 2 * 50 * 1e-3 * by_hand)


def test_randomized_response_is_bounded_tightly_and_rarely_beyond_the_truth():
    """2000 coins answered truly with chance e^2 / (1 + e^2): mean bound 1.88; above 2 in at most 5 % of 200 games."""
    stream = np.random.default_rng(0)
    right = stream.binomial(2000, 1 / (1 + math.exp(-2.0)), size=200)
    bounds = np.array([one_run(game(2000, 2000, int(each)), 0.0) for each in right])
    assert bounds.mean() == pytest.approx(1.88, abs=0.02)
    assert (bounds > 2.0).mean() <= 0.05


@pytest.mark.parametrize(("sigma", "epsilon"), [(0.5, 10.0), (1.0, 4.38), (2.0, 1.99), (5.0, 0.7255)])
def test_a_gaussian_release_costs_its_closed_form_and_back(sigma, epsilon):
    found = gaussian_epsilon(1 / sigma, 1e-5)
    assert found == pytest.approx(epsilon, abs=0.01)
    assert gaussian_shift(found, 1e-5) == pytest.approx(1 / sigma, abs=1e-4)


def test_the_exact_interval_of_a_share():
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert clopper_pearson(10, 10) == pytest.approx((0.025**0.1, 1.0))
    assert clopper_pearson(5, 10) == pytest.approx((0.187086, 0.812914), abs=1e-6)


@given(hits=st.integers(0, 60), count=st.integers(1, 60))
def test_the_exact_interval_holds_its_share(hits, count):
    low, high = clopper_pearson(min(hits, count), count)
    assert 0 <= low <= min(hits, count) / count <= high <= 1


def test_rates_prove_what_their_exact_intervals_allow():
    """Must: use the lower end for members and the upper one for others. Must not: divide by a rate of zero."""
    low, high = clopper_pearson(90, 100)[0], clopper_pearson(0, 100)[1]
    assert from_rates((90, 100), (0, 100), 0.0) == pytest.approx(math.log(low / high))
    assert from_rates((90, 100), (0, 100), 0.1) == pytest.approx(math.log((low - 0.1) / high))
    assert from_rates((50, 100), (50, 100), 1e-5) == 0.0
    assert from_rates((0, 100), (0, 100), 0.0) == 0.0


@pytest.mark.parametrize(
    "act",
    [
        lambda: game(0, 1, 1), lambda: game(10, 11, 3), lambda: game(10, 5, 6), lambda: game(10, 0, 0),
        lambda: one_run(game(10, 5, 5), 1.0), lambda: one_run(game(10, 5, 5), math.nan),
        lambda: one_run(game(10, 5, 5), 0.0, 1.0), lambda: one_run_gaussian(game(10, 5, 5), 0.0),
        lambda: clopper_pearson(3, 0), lambda: clopper_pearson(4, 3), lambda: from_rates((1, 2), (1, 2), -0.1),
    ],
)  # fmt: skip
def test_numbers_that_make_no_game_are_refused(act):
    with pytest.raises(Refusal):
        act()
