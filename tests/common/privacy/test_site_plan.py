"""Plans whose unit is the site: what they promise, what they need, what is refused."""

from __future__ import annotations

import math

import pytest

from common.config import load
from common.errors import Refusal
from common.privacy.accounting import ONLINE, total_epsilon
from common.privacy.settings import PrivacySettings
from common.privacy.site_plan import BIT_COST, plan_local, plan_site
from common.privacy.units import Adversary, Unit

BASE = {"unit": "site", "epsilon": 8.0, "delta": 1e-4, "clip": 2.0, "spare_rounds": 2, "evaluation_epsilon": 1.0}
MODES = {"M3": {}, "M4": {"colluding": 1}, "M5": {"separation": 4}}
LOCAL = {"epsilon": 2.0, "clip": 1.0, "sampling_rate": 0.25}
PLACE = {"rounds": 10, "dimension": 500, "quorum": 10, "sites": 12}


def settings(mode, **changes):
    return load(PrivacySettings, {"mode": mode, **BASE, **MODES[mode], **changes}, "privacy")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("quantile", [None, 0.5])
def test_the_planned_releases_keep_the_epsilon_and_one_more_does_not(mode, quantile):
    plan = plan_site(settings(mode, quantile=quantile), **PLACE)
    assert plan.releases == {"M5": 3}.get(mode, 10) + 2
    assert total_epsilon([plan.charge(plan.releases)], 1e-4, ONLINE) <= 8.0
    assert total_epsilon([plan.charge(plan.releases + 1)], 1e-4, ONLINE) > 8.0
    assert (plan.unit, plan.sampling_rate, plan.steps) == (Unit.SITE, 1.0, 1)
    assert plan.integers


def test_who_must_be_trusted_is_in_the_plan():
    central, shared, turns = (plan_site(settings(mode), **PLACE) for mode in MODES)
    assert central.adversary is turns.adversary is Adversary.MODEL_USERS
    assert central.central
    assert turns.central
    assert shared.adversary is Adversary.SERVER_AND_COLLUDERS
    assert not shared.central
    assert (central.honest, shared.honest, turns.honest) == (1, 9, 1)
    assert shared.sigma == pytest.approx(central.sigma / 3)


def test_turns_need_less_noise_than_every_round_would_although_one_moves_several():
    every, turns = plan_site(settings("M3"), **PLACE), plan_site(settings("M5"), **PLACE)
    assert turns.noise_multiplier < every.noise_multiplier
    assert turns.sigma > turns.noise_multiplier * turns.sensitivity


def test_rounding_costs_next_to_nothing():
    plan = plan_site(settings("M4"), **PLACE)
    assert plan.scale * plan.record_bound < plan.sensitivity < 1.001 * plan.scale * plan.record_bound


@pytest.mark.parametrize("sites", [12, 1000])
def test_knowing_how_many_were_clipped_costs_little_and_is_in_the_bound(sites):
    place = {**PLACE, "sites": sites}
    fixed, adaptive = plan_site(settings("M3"), **place), plan_site(settings("M3", quantile=0.5), **place)
    assert adaptive.dimension == fixed.dimension + 1
    assert adaptive.record_bound == pytest.approx(math.hypot(1.0, adaptive.lane_bound))
    cost = adaptive.sigma / adaptive.scale / (fixed.sigma / fixed.scale)
    assert 1 < cost <= BIT_COST + 1e-3
    spread = adaptive.sigma / adaptive.scale / (2 * adaptive.lane_bound)  # noise of the number that were not clipped
    assert spread >= sites / 20 * 0.999


def test_the_two_layers_say_that_they_belong_together():
    asked = settings("M4", local=LOCAL)
    outer = plan_site(asked, **PLACE)
    inner = plan_local(
        asked.local, delta=1e-5, noise="system", local_steps=3, releases=outer.releases, dimension=500, records=400
    )
    assert (outer.layered, inner.layered) == (True, True)
    assert (inner.mode, inner.unit, inner.steps, inner.releases) == ("M1", Unit.RECORD, 3, 12)
    assert total_epsilon([inner.charge(inner.steps * inner.releases)], 1e-5, ONLINE) <= 2.0
    assert inner.bounds_records
    assert inner.bounds_sites
    assert not outer.bounds_records


@pytest.mark.parametrize(
    ("mode", "changes"),
    [
        ("M3", {"unit": "record"}),
        ("M3", {"colluding": 1}),
        ("M3", {"sampling_rate": 0.5}),
        ("M3", {"separation": 4}),
        ("M4", {"colluding": None}),
        ("M4", {"metric_share": 0.1}),
        ("M5", {"separation": None}),
        ("M5", {"separation": 1}),
        ("M4", {"quantile": 1.0}),
        ("M4", {"quantile": float("nan")}),
        ("M4", {"local": {**LOCAL, "epsilon": float("inf")}}),
        ("M4", {"local": {**LOCAL, "clip": 0.0}}),
        ("M4", {"local": {**LOCAL, "colluding": 1}}),
    ],
)
def test_settings_that_no_mode_or_another_one_uses_are_refused(mode, changes):
    with pytest.raises(Refusal):
        settings(mode, **changes)


@pytest.mark.parametrize("changes", [{"local": LOCAL}, {"quantile": 0.5}, {"separation": 4}, {"unit": "site"}])
def test_modes_for_records_take_nothing_of_the_site(changes):
    table = {**BASE, "mode": "M1", "unit": "record", "sampling_rate": 0.2, **changes}
    with pytest.raises(Refusal):
        load(PrivacySettings, table, "privacy")


def test_without_an_honest_site_or_with_a_delta_for_one_whole_site_nothing_is_planned():
    with pytest.raises(Refusal, match="honest"):
        plan_site(settings("M4", colluding=10), **PLACE)
    with pytest.raises(Refusal, match="delta"):
        plan_site(settings("M3", delta=0.01), **{**PLACE, "sites": 100})
