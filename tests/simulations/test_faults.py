"""Faults of a world: each is drawn on a path of its own, a site's pace is its own, and nonsense is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.errors import Code, Refusal
from simulations.faults import (
    AvailabilitySettings,
    CrashSettings,
    FaultSettings,
    Place,
    StragglerSettings,
    lost,
)
from simulations.scenario import example, read_scenario

SEED = 7
PACES = {"seconds": 60.0, "spread": 0.5, "jitter": 0.3, "slow": 0.2, "factor": 8.0}
SITES = range(1, 801)


def place(site: int, round_number: int = 1, attempt: int = 0) -> Place:
    return site, "train", round_number, attempt


def test_a_site_keeps_its_pace_and_no_two_attempts_are_alike() -> None:
    pace = StragglerSettings(**PACES)
    assert pace.usual(SEED, 3, 40) == pace.usual(SEED, 3, 40) != pace.usual(SEED, 4, 40)
    taken = [pace.taken(SEED, place(3, number), 40) for number in range(1, 200)]
    assert len(set(taken)) == len(taken)
    assert np.median(taken) == pytest.approx(pace.usual(SEED, 3, 40), rel=0.1)
    assert min(taken) > pace.quickest(SEED, 3, 40)
    assert pace.taken(SEED, place(3, 5), 40) == taken[4] != pace.taken(SEED + 1, place(3, 5), 40)


def test_paces_are_those_that_were_asked_for() -> None:
    """Must: be log-normal round the median, with a share of slow sites. Must not: depend on records nobody counts."""
    plain = StragglerSettings(seconds=60.0, spread=0.5)
    logs = np.log([plain.usual(SEED, site, 40) / 60.0 for site in SITES])
    assert abs(np.mean(logs)) < 0.06
    assert np.std(logs) == pytest.approx(0.5, rel=0.1)
    slow = StragglerSettings(**PACES)
    times = {round(slow.usual(SEED, site, 40) / plain.usual(SEED, site, 40), 6) for site in SITES}
    assert times == {1.0, 8.0}
    share = np.mean([slow.usual(SEED, site, 40) > 2 * plain.usual(SEED, site, 40) for site in SITES])
    assert share == pytest.approx(0.2, abs=0.05)
    assert StragglerSettings(seconds=10.0, seconds_per_record=2.0).usual(SEED, 1, 40) == 90.0


def test_one_fault_more_or_another_strength_moves_no_other_draw() -> None:
    alone, all_of_them = StragglerSettings(seconds=60.0, jitter=0.3), StragglerSettings(**PACES)
    for site in SITES[:40]:
        ratio = all_of_them.taken(SEED, place(site), 9) / all_of_them.usual(SEED, site, 9)
        assert alone.taken(SEED, place(site), 9) / alone.usual(SEED, site, 9) == pytest.approx(ratio)
    some, more = CrashSettings(chance=0.1, seconds=30.0), CrashSettings(chance=0.4, seconds=90.0, spread=1.0)
    for site in SITES[:200]:
        few, many = some.drawn(SEED, place(site)), more.drawn(SEED, place(site))
        if few is not None:
            assert many is not None
            assert (few.moment, few.share, few.away) == (many.moment, many.share, 30.0)
    fewer = {site for site in SITES if lost(SEED, 0.1, place(site))}
    assert fewer < {site for site in SITES if lost(SEED, 0.3, place(site))}


def test_crashes_come_as_often_as_asked_at_every_moment() -> None:
    drawn = [CrashSettings(chance=0.25, seconds=30.0).drawn(SEED, place(site)) for site in SITES]
    crashes = [crash for crash in drawn if crash]
    assert len(crashes) / len(SITES) == pytest.approx(0.25, abs=0.05)
    assert {crash.moment for crash in crashes} == {"working", "worked", "reported"}
    assert all(0 <= crash.share < 1 for crash in crashes)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_sites_are_up_their_share_of_every_day(spread: float) -> None:
    """Must: count without a look at each site what a look at each finds. Must not: differ from day to day."""
    hours = AvailabilitySettings(share=0.4, spread=spread)
    moments = np.arange(0, 86400, 1800)
    counts = np.array([hours.count(SEED, 1, 800, moment) for moment in moments])
    assert counts.mean() / len(SITES) == pytest.approx(0.4, abs=0.02)
    assert hours.count(SEED, 1, 800, 5e4) == sum(hours.up(SEED, site, 5e4) for site in SITES)
    assert [hours.up(SEED, site, 1e4) for site in SITES] == [hours.up(SEED, site, 1e4 + 3 * 86400) for site in SITES]
    if spread == 0:
        assert set(counts) == {0, len(SITES)}
    if spread == 1:
        assert counts.min() > 0.3 * len(SITES)


STRAGGLERS = {"seconds": 60.0}


@pytest.mark.parametrize(
    ("faults", "why"),
    [
        ({"dropout": 1.0}, "below 1"),
        ({"stragglers": {**STRAGGLERS, "slow": 1.0, "factor": 2.0}}, "below 1"),
        ({"stragglers": {**STRAGGLERS, "slow": -0.1, "factor": 2.0}}, "at least 0"),
        ({"stragglers": {**STRAGGLERS, "slow": 0.1}}, "belong together"),
        ({"stragglers": {**STRAGGLERS, "factor": 3.0}}, "belong together"),
        ({"stragglers": {"spread": 0.5}}, "no time"),
        ({"stragglers": {"seconds": float("nan")}}, "finite"),
        ({"stragglers": {"seconds": -1.0}}, "at least 0"),
        ({"stragglers": {**STRAGGLERS, "jiter": 0.1}}, "nearest is 'jitter'"),
        ({"stragglrs": STRAGGLERS}, "nearest is 'stragglers'"),
        ({"stragglers": STRAGGLERS, "crashes": {"chance": 1.0, "seconds": 9.0}}, "below 1"),
        ({"stragglers": STRAGGLERS, "crashes": {"chance": 0.1, "seconds": 0.0}}, "above 0"),
        ({"crashes": {"chance": 0.1, "seconds": 9.0}}, "no clock"),
        ({"availability": {"share": 0.5}}, "no clock"),
        ({"stragglers": STRAGGLERS, "availability": {"share": 0.0}}, "above 0"),
        ({"stragglers": STRAGGLERS, "availability": {"share": 1.0}}, "below 1"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(faults: dict[str, Any], why: str) -> None:
    changes = [f"world.faults={_toml(faults)}"]
    with pytest.raises(Refusal, match=why) as refused:
        read_scenario(example("clinics"), changes)
    assert refused.value.code is Code.CONFIG_INVALID


def test_a_world_without_time_has_no_clock() -> None:
    assert not FaultSettings(dropout=0.5).timed
    assert FaultSettings(stragglers=StragglerSettings(seconds=1.0)).timed


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + "}"
    return str(value)
