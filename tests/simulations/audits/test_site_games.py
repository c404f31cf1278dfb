"""The mechanisms for whole sites on canary sites: what they promise is not ruled out, and what breaks them is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import client.site_level
import server.site_level
import simulations.audits.site_games
from common.privacy.correlated import column_norm, next_noise
from common.privacy.mechanism import MechanismPlan
from common.privacy.plan import PrivacySettings
from common.privacy.site_plan import plan_site
from common.randomness import ReplayEntropy, SystemEntropy
from simulations.audits.games import Bound, bound_by_rates, play
from simulations.audits.mechanisms import claimed, release_of, sized
from simulations.audits.site_games import AT_ONCE, CUTS, enough, whitened
from tests.simulations.attacked import MODES

ROUNDS = 8
CASES = [(mode, epsilon, quantile) for mode in MODES for epsilon, quantile in ((1.0, None), (4.0, 0.5))]


def plan(mode: str, epsilon: float = 1.0, quantile: float | None = None) -> MechanismPlan:
    settings = PrivacySettings(
        mode=mode, unit="site", epsilon=epsilon, delta=1e-3, clip=0.5, spare_rounds=0, evaluation_epsilon=2.0,
        quantile=quantile, **MODES[mode],
    )  # type: ignore[arg-type]  # fmt: skip
    return plan_site(settings, rounds=ROUNDS, dimension=3, quorum=5, sites=20)


@cache
def promise(asked: MechanismPlan) -> float:
    """What is claimed for ROUNDS rounds."""
    return claimed(sized(asked, 0), ROUNDS)


def seen(asked: MechanismPlan, source: Callable[[], Any] = SystemEntropy) -> tuple[Bound, float]:
    """What one game proves of ROUNDS rounds, and what is claimed for them."""
    claim = promise(asked)
    canaries = enough(claim)
    game = play(release_of(asked, canaries, source, releases=ROUNDS), canaries, SystemEntropy())
    return bound_by_rates(game, CUTS, asked.delta), claim


def weaken(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Sites and coordinator add so much of the noise that they account for."""
    integers, normals = simulations.audits.site_games.integer_noise, server.site_level.normals
    for room in (simulations.audits.site_games, server.site_level):
        monkeypatch.setattr(room, "integer_noise", lambda *given: factor * integers(*given))
    monkeypatch.setattr(server.site_level, "normals", lambda *given: factor * normals(*given))


@pytest.mark.parametrize(("mode", "epsilon", "quantile"), CASES)
def test_what_a_mechanism_promises_is_not_ruled_out(mode: str, epsilon: float, quantile: float | None):
    """Must: see that something is released, with room to see more than is claimed. Must not: see more."""
    found, claim = zip(*(seen(plan(mode, epsilon, quantile)) for _ in range(5)), strict=True)
    assert max(one.epsilon for one in found) <= claim[0] <= epsilon + 1e-6
    assert claim[0] == pytest.approx(epsilon, abs=0.05)
    assert np.mean([one.epsilon for one in found]) > 0.02 * epsilon
    assert min(one.ceiling for one in found) > claim[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_fifth_of_the_noise_is_caught(mode: str, monkeypatch: pytest.MonkeyPatch):
    weaken(monkeypatch, 0.2)
    assert all(found.epsilon > claim for found, claim in (seen(plan(mode)) for _ in range(5)))


@pytest.mark.parametrize("mode", MODES)
def test_clipping_that_does_nothing_is_caught(mode: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client.site_level, "shortened", lambda change, clip: change)
    found, claim = seen(plan(mode))
    assert found.epsilon > claim


class _Stuck(ReplayEntropy):
    """A stream that says it is fresh and is always the same."""

    __slots__ = ()
    kind = "system"

    def __init__(self) -> None:
        super().__init__(7)


@pytest.mark.parametrize("mode", MODES)
def test_a_seed_that_is_used_again_is_caught(mode: str):
    found, claim = seen(plan(mode), _Stuck)
    assert found.attack.startswith("difference to an empty run")
    assert found.epsilon > claim


def test_noise_that_does_not_cancel_as_planned_is_no_stronger_than_it_says(monkeypatch: pytest.MonkeyPatch):
    """Must not: take noise for weaker or stronger because rounds are combined."""
    asked = sized(plan("M5"), 0)
    scores = release_of(plan("M5"), AT_ONCE, releases=ROUNDS)(np.zeros(AT_ONCE, bool))
    turns = ROUNDS // asked.separation
    assert scores.std() == pytest.approx(asked.noise_multiplier / np.sqrt(turns), rel=0.15)
    weaken(monkeypatch, 0.0)
    assert np.allclose(release_of(plan("M5"), AT_ONCE, releases=ROUNDS)(np.ones(AT_ONCE, bool)), 1.0)


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_whitening_takes_the_correlation_of_the_noise_away(band: int, rounds: int, seed: int):
    normals = np.random.default_rng(seed).normal(size=(rounds, 3))
    past, noise = np.zeros((0, 3)), []
    for normal in normals:
        one, past = next_noise(normal, past, band)
        noise.append(one)
    assert np.allclose(whitened(noise, band), normals)
    alone = [np.eye(1, 3)[0] * (number == 0) for number in range(max(rounds, band))]
    assert np.linalg.norm(whitened(alone, band)) == pytest.approx(column_norm(band))


@given(st.floats(0, 100))
def test_a_larger_claim_takes_more_canaries_up_to_a_bearable_number(epsilon: float):
    assert 2000 <= enough(epsilon) <= enough(epsilon + 1) <= 50_000
