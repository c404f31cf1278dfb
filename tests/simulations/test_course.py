"""The course of a world: what becomes of each order of work, who is up, and what time it is then."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.errors import Code, Refusal
from common.job import AggregationSettings, Job
from common.roster import Roster
from simulations.course import Course, Fate, refuse_hopeless
from simulations.faults import AvailabilitySettings, CrashSettings, FaultSettings, StragglerSettings

DEADLINE = 100.0


@dataclass(frozen=True)
class Rolls:
    """A roster of sites with 40 records each."""

    count: int

    @property
    def ids(self) -> range:
        return range(1, self.count + 1)

    def site(self, number: int) -> Any:
        assert number in self.ids
        return SimpleNamespace(nominal_records=40)


def rolls(count: int) -> Roster:
    return cast("Roster", Rolls(count))


def course(sites: int = 200, **faults: Any) -> Course:
    return Course(FaultSettings(**faults), 3, rolls(sites))


def sent(made: Course, sites: range, number: int = 1) -> dict[int, Fate]:
    begun = made.clock.now()
    fates = made.fates(sites, ("train", number, 0), DEADLINE)
    made.wait(fates, begun, DEADLINE)
    return fates


PACE = StragglerSettings(seconds=80.0, spread=0.5)


def test_a_round_takes_as_long_as_its_last_answer_or_until_the_deadline() -> None:
    made = course(stragglers=PACE)
    quick = [site for site in range(1, 201) if made.usual(site) <= DEADLINE]
    fates = sent(made, cast("range", quick[:20]))
    assert {fate.end for fate in fates.values()} == {"answered"}
    assert made.clock.now() == max(made.usual(site) for site in quick[:20])
    begun = made.clock.now()
    fates = sent(made, made.some()[:50], 2)
    assert made.clock.now() == begun + DEADLINE
    for site, fate in fates.items():
        late = made.usual(site) > DEADLINE
        assert (fate.end, fate.heard) == (("late", math.inf) if late else ("answered", begun + made.usual(site)))


def test_a_late_site_goes_on_working_and_takes_up_the_next_order_when_it_is_done() -> None:
    """Must: begin after the old order. Must not: begin on one that is over by then."""
    made = course(stragglers=StragglerSettings(seconds=150.0))
    assert [sent(made, range(1, 2), number)[1].end for number in (1, 2)] == ["late", "late"]
    assert (made.clock.now(), made.free(1)) == (200.0, 300.0)
    slower = course(stragglers=StragglerSettings(seconds=250.0))
    ends = [sent(slower, range(1, 2), number)[1].end for number in (1, 2, 3, 4)]
    assert ends == ["late", "busy", "late", "busy"]
    assert slower.up(1)
    assert slower.free(1) == 500.0


def test_a_site_that_crashes_is_away_and_comes_back() -> None:
    made = course(stragglers=StragglerSettings(seconds=10.0), crashes=CrashSettings(chance=0.4, seconds=500.0))
    fates = sent(made, range(1, 201))
    crashed = {site: fate.crash for site, fate in fates.items() if fate.crash}
    assert {fate.end for fate in fates.values()} == {"answered", "crashed"}
    assert made.clock.now() == 10.0, "whoever crashes is heard of at once: its link says so"
    for site, crash in crashed.items():
        assert (fates[site].end == "answered") == (crash.moment == "reported")
        assert not made.up(site)
    assert made.count() == 200 - len(crashed)
    again = sent(made, range(1, 201), 2)
    assert {site for site, fate in again.items() if fate.end == "away"} == set(crashed)
    made.clock.sleep(600.0)
    assert all(made.up(site) for site in crashed)


def test_hours_and_crashes_are_counted_without_a_look_at_each_site() -> None:
    hours = AvailabilitySettings(share=0.4)
    crashes = CrashSettings(chance=0.3, seconds=1e5, spread=1.0)
    made = course(3000, stragglers=PACE, availability=hours, crashes=crashes)
    for number in range(1, 4):
        sent(made, range(1, 400), number)
        made.clock.sleep(20000.0)
        assert made.count() == sum(made.up(site) for site in range(1, 3001))
    made.end()
    assert all(made.up(site) for site in range(1, 3001))


def test_every_order_is_counted_once_with_its_end() -> None:
    faults = {"dropout": 0.2, "stragglers": PACE, "crashes": CrashSettings(chance=0.1, seconds=300.0)}
    made = course(**faults)
    for number in range(1, 6):
        sent(made, range(1, 201), number)
    assert all(sum(each.ends.values()) == 200 for each in made.log)
    assert all(any(each.ends[end] for each in made.log) for end in ("answered", "late", "crashed", "lost", "away"))
    assert all(each.records == 40 * each.ends["answered"] for each in made.log)
    assert all(each.slow_records == 0 for each in made.log), "a slow site takes twice the median, beyond this deadline"


def test_a_world_without_a_clock_loses_answers_as_ever_and_keeps_no_log() -> None:
    made = course(dropout=0.3)
    ends = {fate.end for fate in made.fates(range(1, 201), ("train", 1, 0), DEADLINE).values()}
    assert ends == {"answered", "lost"}
    assert made.log == []


def job(**asked: Any) -> Job:
    settings = {"strategy": "fedavg", "quorum": 20, "deadline_seconds": DEADLINE, **asked}
    return cast("Job", SimpleNamespace(aggregation=AggregationSettings(**settings)))


def test_a_deadline_that_too_few_can_make_is_refused_with_one_that_they_can() -> None:
    faults = FaultSettings(stragglers=PACE)
    refuse_hopeless(job(), faults, 3, rolls(60))
    with pytest.raises(Refusal, match="a round needs 20") as refused:
        refuse_hopeless(job(deadline_seconds=20.0), faults, 3, rolls(60))
    assert refused.value.code is Code.CONFIG_INVALID
    seconds = float(refused.value.do.split()[1])
    refuse_hopeless(job(deadline_seconds=seconds), faults, 3, rolls(60))
    refuse_hopeless(job(deadline_seconds=20.0), FaultSettings(), 3, rolls(60))
