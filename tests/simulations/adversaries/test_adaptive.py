"""Adaptive attacks: as harmful as any strength that a plain search finds, against the very rule they face."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.errors import Code, Refusal
from server.strategies.catalogue import strategy
from simulations.adversaries.adaptive import Search, adaptive, distance, strongest
from simulations.adversaries.catalogue import STRENGTHS, adaptive_on_updates, on_updates
from simulations.adversaries.updates import Attack

STREAM = np.random.default_rng(1)
HONEST, OWN = STREAM.normal(size=(9, 12)) + 0.3, STREAM.normal(size=(2, 12)) + 0.3


def draws() -> np.random.Generator:
    return np.random.default_rng(3)


def pipeline(rule: str, **chosen: Any) -> Any:
    return strategy(rule, liars=2, **chosen).combine.apply


def harm_of(attack: Attack, through: Any) -> float:
    return distance(through(np.vstack([HONEST, attack.poisoned(HONEST, OWN, {}, draws())])), HONEST)


@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "krum", "geometric-median"])
@pytest.mark.parametrize("name", STRENGTHS)
def test_no_strength_of_a_fine_grid_does_more_harm(name: str, rule: str) -> None:
    through, (setting, search) = pipeline(rule, pre=("nnm",)), STRENGTHS[name]
    best = max(
        harm_of(on_updates(name, **{setting: float(strength)}), through)
        for strength in np.geomspace(search.low, search.high, 150)
    )
    assert harm_of(adaptive_on_updates(name, through), through) >= 0.95 * best


def test_the_mean_is_harmed_most_by_the_largest_lie_and_a_vote_by_a_hidden_one() -> None:
    """Must: find that a vote sees through what ruins the mean."""
    plain, voted = (lambda rows: rows.mean(axis=0)), pipeline("krum")
    ruined = adaptive_on_updates("ipm", plain).poisoned(HONEST, OWN, {}, draws())
    hidden = adaptive_on_updates("ipm", voted).poisoned(HONEST, OWN, {}, draws())
    assert np.allclose(ruined[0], -STRENGTHS["ipm"][1].high * HONEST.mean(axis=0))
    assert np.linalg.norm(hidden[0]) < 0.01 * np.linalg.norm(ruined[0])
    assert distance(voted(np.vstack([HONEST, hidden])), HONEST) >= distance(voted(np.vstack([HONEST, ruined])), HONEST)


def test_harm_can_be_what_the_attacker_cares_for() -> None:
    def backwards(update: np.ndarray, honest: np.ndarray) -> float:
        return float(-update @ honest.mean(axis=0))

    through = pipeline("median")
    lies = adaptive_on_updates("alie", through, harm=backwards).poisoned(HONEST, OWN, {}, draws())
    tried = [on_updates("alie", z=z).poisoned(HONEST, OWN, {}, draws()) for z in (0.1, 1.0, 10.0)]
    assert all(
        backwards(through(np.vstack([HONEST, lies])), HONEST)
        >= backwards(through(np.vstack([HONEST, other])), HONEST) - 1e-9
        for other in tried
    )


def test_what_the_pipeline_refuses_does_no_harm() -> None:
    def picky(rows: np.ndarray) -> np.ndarray:
        if np.abs(rows).max() > 20:
            raise Refusal(Code.UPDATE_INVALID, "Row refused", "it is too long", "Send less")
        return rows.mean(axis=0)

    lies = adaptive_on_updates("sign-flip", picky).poisoned(HONEST, OWN, {}, draws())
    assert 10 < np.abs(lies).max() <= 20


def test_every_strength_of_a_round_sees_the_same_draws() -> None:
    """Must: send what was tried. Must not: win by a lucky draw that is not sent."""
    seen: list[np.ndarray] = []

    def through(rows: np.ndarray) -> np.ndarray:
        seen.append(rows[len(HONEST) :])
        return rows.mean(axis=0)

    family = adaptive(lambda value: on_updates("gaussian", deviation=value), through, Search(low=0.1, high=10.0))
    lies = family.poisoned(HONEST, OWN, {}, draws())
    assert any(np.array_equal(lies, other) for other in seen)
    assert np.allclose(seen[0] / 0.1, seen[47] / 10.0)


def test_memory_is_that_of_the_family() -> None:
    attack = adaptive(
        lambda value: on_updates("mimic", warm_up=2), pipeline("krum"), Search(low=1.0, high=2.0, points=2)
    )
    memory = attack.remembered(HONEST, OWN, {}, draws())
    assert memory.keys() == on_updates("mimic", warm_up=2).remembered(HONEST, OWN, {}, draws()).keys()


@pytest.mark.parametrize("peak", [0.1, 0.37, 2.0, 55.0, 100.0])
def test_the_search_finds_a_peak_wherever_it_is(peak: float) -> None:
    found = strongest(lambda strength: -abs(np.log(strength / peak)), Search(low=0.1, high=100.0, steps=25))
    assert found == pytest.approx(peak, rel=1e-3)


def test_an_attack_without_a_strength_is_not_adaptive() -> None:
    with pytest.raises(Refusal, match="adaptive attack") as caught:
        adaptive_on_updates("zero", pipeline("median"))
    assert caught.value.code is Code.CONFIG_INVALID
