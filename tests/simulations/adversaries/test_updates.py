"""Attacks on updates against their papers: known answers, and nothing changed but what is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from common.errors import Code, Refusal
from server.strategies.catalogue import strategy
from simulations.adversaries.catalogue import ON_UPDATES, on_updates
from simulations.adversaries.hidden import z_max

NEEDED: dict[str, dict[str, Any]] = {
    "gaussian": {"deviation": 2.0},
    "ipm": {"epsilon": 0.5},
    "mimic": {"warm_up": 3},
    "not-finite": {"value": "nan"},
}
STREAM = np.random.default_rng(4)
HONEST, OWN = STREAM.normal(size=(20, 6)) + 1.0, STREAM.normal(size=(5, 6)) + 1.0


def draws() -> np.random.Generator:
    return np.random.default_rng(9)


def sent(name: str, honest: Any = HONEST, own: Any = OWN, **chosen: Any) -> np.ndarray:
    return on_updates(name, **{**NEEDED.get(name, {}), **chosen}).poisoned(honest, own, {}, draws())


@pytest.mark.parametrize("name", ON_UPDATES)
def test_an_attack_sends_one_row_a_liar_and_changes_nothing_it_was_given(name: str) -> None:
    attack = on_updates(name, **NEEDED.get(name, {}))
    honest, own = HONEST.copy(), OWN.copy()
    memory = attack.remembered(honest, own, {}, draws())
    kept = {key: array.copy() for key, array in memory.items()}
    lies = attack.poisoned(honest, own, memory, draws())
    assert (lies.shape, lies.dtype) == (OWN.shape, np.float64)
    assert np.array_equal(lies, attack.poisoned(honest, own, memory, draws()), equal_nan=True)
    lies += 1.0
    attack.remembered(honest, own, memory, draws())
    assert np.array_equal(honest, HONEST)
    assert np.array_equal(own, OWN)
    assert all(np.array_equal(memory[key], kept[key]) for key in kept)
    assert attack.poisoned(honest, own[:0], {}, draws()).shape == (0, 6) if name != "alie" else True


def test_plain_attacks_send_what_they_say() -> None:
    assert np.array_equal(sent("sign-flip", scale=10.0), -10 * OWN)
    assert np.array_equal(sent("zero"), np.zeros((5, 6)))
    assert np.isnan(sent("not-finite")).all()
    assert np.isposinf(sent("not-finite", value="inf")).all()
    assert (sent("not-finite", value="huge") == 1e30).all()
    assert np.array_equal(sent("replacement", boost=3.0), 3 * OWN)
    assert np.array_equal(sent("replacement"), 5 * OWN)  # 25 sites, 5 liars
    noise = sent("gaussian", own=np.zeros((5, 20_000)), honest=np.zeros((1, 20_000)))
    assert noise.std() == pytest.approx(2.0, rel=0.02)
    assert not np.array_equal(noise[0], noise[1])


def test_a_stale_site_sends_what_it_had_a_round_before() -> None:
    attack = on_updates("stale")
    assert np.array_equal(attack.poisoned(HONEST, OWN, {}, draws()), OWN)
    memory = attack.remembered(HONEST, OWN, {}, draws())
    assert np.array_equal(attack.poisoned(HONEST, 2 * OWN, memory, draws()), OWN)
    assert np.array_equal(attack.poisoned(HONEST, OWN[:2], memory, draws()), OWN[:2])


@pytest.mark.parametrize(("epsilon", "product"), [(3.9, 0.02), (4.0, 0.0), (4.1, -0.02)])
def test_the_mean_turns_round_exactly_where_liars_weigh_as_much_as_the_honest(epsilon: float, product: float) -> None:
    """<mean of all, honest mean> is (h - f epsilon) / n of its square: zero at epsilon = h / f = 4."""
    honest = np.tile([0.6, 0.8], (20, 1))
    lies = sent("ipm", honest=honest, own=np.ones((5, 2)), epsilon=epsilon)
    assert np.vstack([honest, lies]).mean(axis=0) @ honest.mean(axis=0) == pytest.approx(product, abs=1e-12)


@pytest.mark.parametrize(("sites", "liars", "z"), [(50, 24, 1.4261), (25, 5, 0.2533), (4, 1, 0.0)])
def test_z_max_is_that_of_the_paper(sites: int, liars: int, z: float) -> None:
    assert z_max(sites, liars) == pytest.approx(z, abs=5e-5)


def test_alie_is_z_deviations_below_the_mean_in_every_coordinate() -> None:
    assert np.allclose(sent("alie", z=1.5), HONEST.mean(axis=0) - 1.5 * HONEST.std(axis=0))
    assert np.allclose(sent("alie"), HONEST.mean(axis=0) - z_max(25, 5) * HONEST.std(axis=0))
    with pytest.raises(Refusal, match="majority") as caught:
        sent("alie", honest=HONEST[:4])
    assert caught.value.code is Code.CONFIG_INVALID


def gap(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a - b))


@settings(max_examples=30, deadline=None)
@given(some.integers(0, 2**32), some.sampled_from(["unit", "deviation", "sign"]))
def test_min_max_and_min_sum_go_as_far_as_they_may_and_no_farther(seed: int, direction: str) -> None:
    """Must: attain their bound, in the named direction. Must not: pass it."""
    honest = np.random.default_rng(seed).normal(size=(7, 4)) + 0.5
    mean = honest.mean(axis=0)
    apart = [[gap(a, b) for b in honest] for a in honest]
    lie = sent("min-max", honest=honest, own=OWN[:2, :4], direction=direction)[0]
    assert max(gap(lie, row) for row in honest) == pytest.approx(max(map(max, apart)), rel=1e-9)
    other = sent("min-sum", honest=honest, own=OWN[:2, :4], direction=direction)[0]
    most = max(sum(one**2 for one in row) for row in apart)
    assert sum(gap(other, row) ** 2 for row in honest) == pytest.approx(most, rel=1e-9)
    away = {"unit": mean, "deviation": honest.std(axis=0), "sign": np.sign(mean)}[direction]
    for found in (lie, other):
        assert (mean - found) @ away == pytest.approx(gap(found, mean) * np.linalg.norm(away))


@pytest.mark.parametrize("name", ["min-max", "min-sum"])
def test_where_honest_rows_agree_nothing_can_hide(name: str) -> None:
    assert np.allclose(sent(name, honest=np.ones((4, 6))), np.ones((5, 6)))
    assert np.allclose(sent(name, honest=np.zeros((4, 6)), direction="unit"), np.zeros((5, 6)))


def test_mimic_learns_who_differs_most_and_then_stays_with_it() -> None:
    """Must: copy the site at the end of the direction of largest variance. Must not: change it after the warm-up."""
    stream = np.random.default_rng(2)
    attack, memory = on_updates("mimic", warm_up=4), {}
    copied = []
    for turn in range(8):
        honest = 0.1 * stream.normal(size=(6, 5))
        honest[:, 2] += np.array([0.0, 0.1, 0.2, 0.3, 0.4, 5.0]) if turn < 6 else np.array([9.0, 0, 0, 0, 0, 0])
        lies = attack.poisoned(honest, OWN[:3, :5], memory, draws())
        memory = attack.remembered(honest, OWN[:3, :5], memory, draws())
        copied.append([int(np.flatnonzero((honest == lie).all(axis=1))[0]) for lie in lies])
    assert copied == [[5, 5, 5]] * 8
    assert abs(memory["direction"][2]) > 0.99
    assert memory["seen"].tolist() == [4.0]


def test_mimic_moves_krum_to_the_site_it_copies() -> None:
    """Nothing that is sent is a lie, and yet one site decides alone."""
    honest = np.random.default_rng(8).normal(size=(7, 10))
    lies = on_updates("mimic", warm_up=1).poisoned(honest, np.zeros((3, 10)), {}, draws())
    update = strategy("krum", liars=3).combine.apply(np.vstack([honest, lies]))
    assert np.array_equal(update, lies[0])


@pytest.mark.parametrize(
    ("name", "chosen", "told"),
    [
        ("sign-flp", {}, "nearest is 'sign-flip'"),
        ("ipm", {}, "epsilon"),
        ("ipm", {"eps": 1.0}, "no setting 'eps'"),
        ("ipm", {"epsilon": -1.0}, "above 0"),
        ("alie", {"z": 0.0}, "above 0"),
        ("min-max", {"direction": "std"}, "unit, deviation, sign"),
        ("not-finite", {}, "value"),
        ("mimic", {"warm_up": 0}, "above 0"),
        ("gaussian", {"deviation": float("inf")}, "finite"),
    ],
)
def test_an_attack_that_cannot_be_is_refused(name: str, chosen: dict[str, Any], told: str) -> None:
    with pytest.raises(Refusal, match=told) as caught:
        on_updates(name, **chosen)
    assert caught.value.code is Code.CONFIG_INVALID
