"""The real mechanisms on white-box canaries: what they promise is not ruled out, and what breaks them is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import client.guard
import client.private_step
import common.privacy.clipping.opacus_engine
import common.secagg.distributed
import server.site_level
import simulations.audits.games
import simulations.audits.mechanisms
import simulations.audits.site_games
from common.errors import Refusal
from common.privacy.distributed import SiteMechanism
from common.privacy.mechanism import MechanismPlan
from common.privacy.plan import PrivacySettings, plan_counts, plan_training
from common.privacy.site_plan import plan_site
from common.randomness import ReplayEntropy, SystemEntropy
from simulations.audits.games import bound, play
from simulations.audits.mechanisms import claimed, release_of, site_release, sized

CANARIES = 2000
SHARED: dict[str, Any] = {"unit": "record", "delta": 1e-5, "clip": 0.5, "spare_rounds": 0, "evaluation_epsilon": 2.0}
SITES = SiteMechanism(
    noise="discrete-gaussian", dimension=32, metrics=0, metric_share=0.0, clip=1.0, bits=24, sites_max=20, quorum=20,
    colluding=0, noise_multiplier=2.0,
)  # fmt: skip


def plan(mode: str, rate: float = 1.0, steps: int = 1, epsilon: float = 2.0) -> MechanismPlan:
    more = {"colluding": 0, "metric_share": 0.0} if mode == "M2" else {}
    settings = PrivacySettings(mode=mode, sampling_rate=rate, epsilon=epsilon, **more, **SHARED)  # type: ignore[arg-type]
    return plan_training(settings, rounds=1, local_steps=steps, dimension=3, quorum=3, sites=3, records=400)


def sampled() -> MechanismPlan:
    """Four steps of half of the records: a claim at which a fifth of the noise shows in every game."""
    return plan("M1", rate=0.5, steps=4, epsilon=1.2)


def counting() -> MechanismPlan:
    return plan_counts(
        PrivacySettings(mode="M1", sampling_rate=1.0, epsilon=2.0, **SHARED), cells=4, releases=1, quorum=3
    )


def of_sites(mode: str, bits: int | None = None, **noise: str) -> MechanismPlan:
    more = {"colluding": 0, **noise} if mode == "M4" else {}
    settings = PrivacySettings(
        mode=mode, unit="site", epsilon=2.0, delta=1e-5, clip=0.5, spare_rounds=0, evaluation_epsilon=2.0, **more
    )  # type: ignore[arg-type]
    return plan_site(settings, rounds=1, dimension=3, quorum=20, sites=20, bits=bits)


def in_a_ring(noise: str) -> MechanismPlan:
    return of_sites("M4", 16, mechanism=noise)


GAMES = {
    "M3": (lambda: release_of(of_sites("M3"), CANARIES), claimed(of_sites("M3"))),
    "M4": (lambda: release_of(of_sites("M4"), CANARIES), claimed(of_sites("M4"))),
    **{
        f"M4 {noise}": (lambda noise=noise: release_of(in_a_ring(noise), CANARIES), claimed(in_a_ring(noise)))
        for noise in ("discrete-gaussian", "skellam")
    },
    "M1": (lambda: release_of(plan("M1"), CANARIES), claimed(plan("M1"))),
    "M1 sampled": (lambda: release_of(sampled(), CANARIES), claimed(sampled())),
    "M2": (lambda: release_of(plan("M2"), CANARIES), claimed(plan("M2"))),
    "counts": (lambda: release_of(counting(), CANARIES), claimed(counting())),
    "sites": (lambda: site_release(SITES), SITES.epsilon(1, 1e-5)),
}
SLOW = {"sites", "M4 discrete-gaussian", "M4 skellam"}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Games without the figure on which no verdict rests: it takes most of their time."""
    monkeypatch.setattr(simulations.audits.games, "one_run_gaussian", lambda *_: 0.0)


def seen(name: str, trials: int) -> list[float]:
    release, _ = GAMES[name]
    canaries = CANARIES // 2 if name in SLOW else CANARIES  # a thousand sites are many
    return [bound(play(release(), canaries, SystemEntropy()), 1e-5).epsilon for _ in range(trials)]


@pytest.mark.parametrize("name", GAMES)
def test_what_a_mechanism_promises_is_not_ruled_out(name):
    """Must: see that something is released. Must not: see more than is claimed."""
    found, promise = seen(name, 3), GAMES[name][1]
    assert max(found) <= promise
    assert np.mean(found) > 0.1


def weaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mechanism adds a fifth of the noise that it accounts for."""
    normals, integers = client.private_step.normals, client.guard.integer_noise
    for room in (simulations.audits.site_games, server.site_level):
        monkeypatch.setattr(
            room, "integer_noise",
            lambda plan, entropy: integers(replace(plan, noise_multiplier=0.2 * plan.noise_multiplier), entropy),
        )  # fmt: skip
    discrete = common.secagg.distributed.discrete_gaussian
    monkeypatch.setattr(client.private_step, "normals", lambda count, entropy: 0.2 * normals(count, entropy))
    monkeypatch.setattr(
        client.guard, "integer_noise",
        lambda plan, entropy: integers(replace(plan, noise_multiplier=0.2 * plan.noise_multiplier), entropy),
    )  # fmt: skip
    monkeypatch.setattr(
        common.secagg.distributed, "discrete_gaussian", lambda sigma, *more: discrete(0.2 * sigma, *more)
    )


@pytest.mark.parametrize(("name", "trials"), [(name, 6 if name == "sites" else 12) for name in GAMES])
def test_a_fifth_of_the_noise_is_caught(name, trials, monkeypatch):
    weaken(monkeypatch)
    assert np.mean([each > GAMES[name][1] for each in seen(name, trials)]) >= 0.95


@pytest.mark.parametrize("name", ["M1", "M2"])
def test_clipping_that_does_nothing_is_caught(name, monkeypatch):
    real = common.privacy.clipping.opacus_engine.summed

    def loose(*given, **named):
        *others, most = given
        return real(*others, most * 1e6, **named)

    monkeypatch.setattr(common.privacy.clipping.opacus_engine, "summed", loose)
    assert min(seen(name, 2)) > GAMES[name][1]


@pytest.mark.parametrize(("mode", "room"), [("M1", client.private_step), ("M2", simulations.audits.mechanisms)])
def test_a_sampler_that_takes_everybody_is_caught(mode, room, monkeypatch):
    """Must: see that the claim counts on chance where there is none."""
    asked = plan(mode, rate=0.05, epsilon=0.3)
    monkeypatch.setattr(room, "poisson", lambda count, rate, entropy: np.arange(count))
    found = [bound(play(release_of(asked, CANARIES), CANARIES, SystemEntropy()), 1e-5) for _ in range(3)]
    assert min(one.epsilon for one in found) > claimed(asked)


class _Stuck(ReplayEntropy):
    """A stream that says it is fresh and is always the same."""

    __slots__ = ()
    kind = "system"

    def __init__(self) -> None:
        super().__init__(7)


@pytest.mark.parametrize("mode", ["M1", "M2"])
def test_a_seed_that_is_used_again_is_caught(mode):
    asked = plan(mode)
    found = bound(play(release_of(asked, CANARIES, _Stuck), CANARIES, SystemEntropy()), 1e-5)
    assert found.attack == "difference to an empty run"
    assert found.epsilon > claimed(asked)


def test_a_plan_without_noise_and_sums_of_too_few_sites_are_refused():
    nothing = plan_training(
        PrivacySettings(mode="none"), rounds=1, local_steps=1, dimension=3, quorum=2, sites=2, records=100
    )
    with pytest.raises(Refusal):
        sized(nothing, 10)
    with pytest.raises(Refusal):
        site_release(SITES)(np.zeros(30, bool))
