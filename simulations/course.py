"""The course of a world: who is up, what becomes of each order of work, and what time it is when that is known."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import median
from typing import Literal

from common.errors import Code, Refusal
from common.job import Job
from common.orders import Task
from common.roster import Roster
from simulations.clock import SimulatedClock
from simulations.faults import Crash, FaultSettings, lost, stage_of_loss

End = Literal["answered", "late", "busy", "crashed", "lost", "away"]
ENDS: tuple[End, ...] = ("answered", "late", "busy", "crashed", "lost", "away")
LOOKED_AT = 1000  # sites whose paces stand for those of all
SLOW = 2.0  # times the median of all sites, beyond which a site is called slow
MOST_CHECKED = 2**12  # sites that are looked at one by one before a run


@dataclass(frozen=True)
class Fate:
    """What becomes of one order of work at one site.

    end    "answered" in time; "late": after the deadline; "busy" with an earlier order until then; "crashed" over it;
           "lost" on its way; "away": the site is not up
    heard  moment at which the coordinator learns of it; infinite: never      crash  of the site, over this order
    """

    end: End
    heard: float
    crash: Crash | None = None

    @property
    def works(self) -> bool:
        """Whether the site begins on the order, and is charged for that."""
        return self.end not in ("busy", "away")


@dataclass(frozen=True)
class Turnout:
    """One attempt: how many orders ended how; nominal records of sites that answered in time, and of slow ones."""

    task: Task
    round: int
    ends: Mapping[End, int]
    records: int
    slow_records: int


class Course:
    """What goes wrong, when, and what follows from it for later: one for a world, however its sums are formed.

    clock    of the world; it goes on only where sites take time      log  of all attempts so far
    records  nominal, of a site by id
    """

    def __init__(self, faults: FaultSettings, seed: int, roster: Roster):
        self._faults, self._seed, self._roster = faults, seed, roster
        self.clock, self.log = SimulatedClock(), list[Turnout]()
        self._busy = dict[int, float]()  # until when
        self._down = dict[int, tuple[float, float]]()  # from when, and until when
        self._over = False
        self.records = lru_cache(MOST_CHECKED)(self._nominal)

    @property
    def timed(self) -> bool:
        """Whether the world has a clock of its own."""
        return self._faults.timed

    def up(self, site: int) -> bool:
        """Whether the site is here now."""
        now, hours = self.clock.now(), self._faults.availability
        if self._over:
            return True
        return not self._fallen(site, now) and (hours is None or hours.up(self._seed, site, now))

    def free(self, site: int) -> float:
        """When a site that is up can turn to another order: it answers one after the other, as a deployed one does."""
        moment = max(self.clock.now(), self._busy.get(site, 0.0))
        return self._down[site][1] if self._fallen(site, moment) else moment

    def count(self) -> int:
        """How many sites are here now."""
        ids, now, hours = self._roster.ids, self.clock.now(), self._faults.availability
        down = [site for site in self._down if self._fallen(site, now)]
        if hours is None:
            return len(ids) - len(down)
        return hours.count(self._seed, ids[0], ids[-1], now) - sum(hours.up(self._seed, site, now) for site in down)

    def end(self) -> None:
        """The rounds are over: whoever collects ledgers waits until every site has been here once more."""
        self._busy.clear()
        self._down.clear()
        self._over = True

    def fates(
        self, sites: Collection[int], place: tuple[Task, int, int], deadline_seconds: float, stages: int = 1
    ) -> dict[int, Fate]:
        """What becomes of an order of work that these sites are sent now; they are late, busy or down accordingly.

        place   task, round and attempt      stages  of the protocol, at any of which an answer may be lost
        """
        now = self.clock.now()
        self._busy = {site: until for site, until in self._busy.items() if until > now}
        self._down = {site: span for site, span in self._down.items() if span[1] > now}
        found = {site: self._fate(site, place, now + deadline_seconds, stages) for site in sites}
        self._note(found, place)
        return found

    def wait(self, fates: Mapping[int, Fate], begun: float, deadline_seconds: float) -> None:
        """Let time pass until the coordinator has heard of all, or to the deadline. begun: when the orders left."""
        last = max((fate.heard for fate in fates.values()), default=begun)
        self.clock.reach(min(last, begun + deadline_seconds))

    def lost_at(self, site: int, place: tuple[Task, int, int], stage: int, stages: int) -> bool:
        """Whether the site's answer to a stage of the protocol is lost. Stage 0 is that of the work."""
        where = (site, *place)
        return lost(self._seed, self._faults.dropout, where) and stage_of_loss(self._seed, where, stages) == stage

    def usual(self, site: int) -> float:
        """Seconds that the site takes in the middle; 0 where nothing takes time."""
        pace = self._faults.stragglers
        return pace.usual(self._seed, site, self.records(site)) if pace else 0.0

    def slow(self, site: int) -> bool:
        """Whether the site takes more than SLOW times as long as half of all."""
        return self.usual(site) > SLOW * self._median

    def some(self) -> Sequence[int]:
        """LOOKED_AT sites at most, evenly apart: they stand for all."""
        ids = self._roster.ids
        return ids[:: max(1, -(-len(ids) // LOOKED_AT))]

    def _fate(self, site: int, place: tuple[Task, int, int], limit: float, stages: int) -> Fate:
        now, pace, where = self.clock.now(), self._faults.stragglers, (site, *place)
        if not self.up(site):
            return Fate("away", now)
        begun = self.free(site)
        if begun > now and begun >= limit:
            return Fate("busy", math.inf)
        taken = pace.taken(self._seed, where, self.records(site)) if pace else 0.0
        crash = self._faults.crashes.drawn(self._seed, where) if self._faults.crashes else None
        done = begun + taken * (crash.share if crash and crash.moment == "working" else 1.0)
        if done > limit:
            self._busy[site] = done
        if crash:
            self._down[site] = (done, done + crash.away)
        if crash and crash.moment != "reported":
            return Fate("crashed", done if done <= limit else math.inf, crash)
        if done > limit:
            return Fate("late", math.inf, crash)
        gone = self.lost_at(site, place, 0, stages) if stages > 1 else lost(self._seed, self._faults.dropout, where)
        return Fate("lost", math.inf, crash) if gone else Fate("answered", done, crash)

    def _nominal(self, site: int) -> int:
        return self._roster.site(site).nominal_records

    def _fallen(self, site: int, moment: float) -> bool:
        begun, back = self._down.get(site, (0.0, 0.0))
        return begun <= moment < back

    def _note(self, fates: Mapping[int, Fate], place: tuple[Task, int, int]) -> None:
        if not self.timed:
            return
        ends = [fate.end for fate in fates.values()]
        came = [site for site, fate in fates.items() if fate.end == "answered"]
        slow = sum(self.records(site) for site in came if self.slow(site))
        counts = {end: ends.count(end) for end in ENDS}
        self.log.append(Turnout(place[0], place[1], counts, sum(map(self.records, came)), slow))

    @cached_property
    def _median(self) -> float:
        return median(self.usual(site) for site in self.some())


def refuse_hopeless(job: Job, faults: FaultSettings, seed: int, roster: Roster) -> None:
    """Refuse a deadline that too few sites can make even at their quickest. Errors: Refusal CONFIG_INVALID.

    Of a population too large to be looked at nothing is said before its run, which then ends by itself.
    """
    pace, asked = faults.stragglers, job.aggregation
    if pace is None or len(roster.ids) > MOST_CHECKED:
        return
    quickest = sorted(pace.quickest(seed, site, roster.site(site).nominal_records) for site in roster.ids)
    needed = min(asked.quorum * asked.groups, len(quickest))
    able = sum(each <= asked.deadline_seconds for each in quickest)
    if able < needed:
        raise Refusal(
            Code.CONFIG_INVALID,
            f"aggregation.deadline_seconds = {asked.deadline_seconds:g}",
            f"at their quickest {able} of {len(quickest)} sites answer within it, and a round needs {needed}",
            f"Give {math.ceil(quickest[needed - 1])} seconds or more, or quicker sites in [world.faults.stragglers]",
        )
