"""Games of canaries: what they see of a Gaussian release, what of a broken one, and how rarely they accuse wrongly."""

from __future__ import annotations

import numpy as np
import pytest

import simulations.audits.games
from common.errors import Refusal
from common.randomness import ReplayEntropy
from simulations.audits.games import Game, bound, bound_by_rates, flipped, guessed, play
from simulations.audits.lower_bounds import gaussian_epsilon

CANARIES, DELTA = 2000, 1e-5


def gaussian(sigma: float, stream: np.random.Generator):
    """The sum of orthogonal canaries, released with noise."""
    return lambda members: members + sigma * stream.normal(size=members.size)


def bounds(sigma: float, trials: int, seed: int = 0):
    stream = np.random.default_rng(seed)
    release = gaussian(sigma, stream)
    return [bound(play(release, CANARIES, ReplayEntropy(seed, "coins", i)), DELTA) for i in range(trials)]


@pytest.mark.parametrize(
    ("sigma", "low", "gaussian_low"), [(0.5, 3.0, 4.3), (1.0, 1.4, 1.9), (2.0, 0.7, 0.9)]
)  # ranges of five games with the best of seven numbers of guesses each
def test_a_gaussian_release_is_bounded_below_its_epsilon_and_not_far_below(sigma, low, gaussian_low):
    truth = gaussian_epsilon(1 / sigma, DELTA)
    found = bounds(sigma, 10)
    assert np.mean([one.epsilon for one in found]) >= 0.6 * low
    assert np.mean([one.gaussian for one in found]) >= 0.6 * gaussian_low
    assert all(one.epsilon <= one.gaussian <= truth for one in found)
    assert all(one.epsilon < one.ceiling for one in found)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Games whose tighter figure, on which no verdict rests, is left out: most of their time is spent on it."""
    monkeypatch.setattr(simulations.audits.games, "one_run_gaussian", lambda *_: 0.0)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_a_fifth_of_the_noise_is_caught(sigma):
    """Must: rule out the epsilon that the full noise would give, in 95 % of the games at least."""
    claimed = gaussian_epsilon(1 / sigma, DELTA)
    assert np.mean([one.epsilon > claimed for one in bounds(0.2 * sigma, 40)]) >= 0.95


@pytest.mark.usefixtures("plain")
def test_an_honest_release_is_rarely_accused():
    """200 games in which the claim is exactly true."""
    claimed = gaussian_epsilon(1.0, DELTA)
    assert np.mean([one.epsilon > claimed for one in bounds(1.0, 200)]) <= 0.05


@pytest.mark.usefixtures("plain")
def test_answers_at_random_prove_nothing_in_nineteen_of_twenty_games():
    """The rate of error is 5 %; 200 games may show it up to 8 %."""
    stream = np.random.default_rng(3)
    found = [bound(Game(stream.random(500) < 0.5, {"x": stream.normal(size=500)}), 1e-5) for _ in range(200)]
    assert np.mean([one.epsilon > 0 for one in found]) <= 0.08


def test_noise_that_repeats_is_seen_through():
    same = np.random.default_rng(1).normal(size=CANARIES)
    found = bound(play(lambda members: members + 50 * same, CANARIES, ReplayEntropy(1)), DELTA)
    assert found.attack == "difference to an empty run"
    assert found.epsilon == found.ceiling > 5


def test_several_attacks_share_the_error():
    stream = np.random.default_rng(2)
    members = stream.random(400) < 0.5
    scores = members + 0.3 * stream.normal(size=400)
    alone, among = (bound(Game(members, {str(i): scores for i in range(n)}), DELTA) for n in (1, 8))
    assert among.epsilon < alone.epsilon


def test_half_of_the_canaries_are_guessed_the_clearest_first():
    members = np.array([True, False, True, False, True, False, True, False])
    found = guessed(members, np.arange(8.0))
    assert (found.canaries, found.made, found.right) == (8, 4, 2)
    assert guessed(members, members.astype(float)).right == 4
    assert guessed(members, -members.astype(float)).right == 0


def test_coins_are_fair_and_independent_of_each_other():
    coins = flipped(20_000, ReplayEntropy(5))
    assert abs(coins.mean() - 0.5) < 0.015
    assert abs((coins[1:] == coins[:-1]).mean() - 0.5) < 0.015


@pytest.mark.parametrize("scores", [np.zeros(3), np.array([0.0, np.nan]), np.zeros((2, 1))])
def test_scores_that_do_not_fit_are_refused(scores):
    with pytest.raises(Refusal):
        Game(np.array([True, False]), {"x": scores})


def test_one_canary_is_no_game():
    with pytest.raises(Refusal):
        bound(Game(np.array([True]), {"x": np.zeros(1)}), 0.0)


def test_rates_prove_more_than_guesses_where_delta_is_large_and_never_more_than_is_true():
    """Must not: accuse an honest release. Must: see a fifth of the noise, which one game at this delta cannot."""
    delta, cuts = 1e-3, {"half": 0.5, "whole": 1.0}
    claimed = gaussian_epsilon(1.0, delta)
    stream = np.random.default_rng(4)
    honest, broken = ([play(gaussian(s, stream), CANARIES, ReplayEntropy(9, i)) for i in range(40)] for s in (1.0, 0.2))
    assert max(bound_by_rates(game, cuts, delta).epsilon for game in honest) <= claimed
    found = [bound_by_rates(game, cuts, delta) for game in broken]
    assert min(one.epsilon for one in found) > claimed
    assert all(one.epsilon <= one.ceiling for one in found)
    assert bound(broken[0], delta).ceiling < claimed


@pytest.mark.parametrize("members", [np.ones(5, bool), np.zeros(5, bool)])
def test_a_game_in_which_all_are_in_or_none_is_refused(members):
    with pytest.raises(Refusal, match="no canary is in, or none is out"):
        bound_by_rates(Game(members, {"x": np.zeros(5)}), {"half": 0.5}, DELTA)
