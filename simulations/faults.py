"""What goes wrong in a world and when, by seed: lost answers, slow sites, crashes, hours in which a site is away.

Every draw has a path of its own: one fault more, or another chance of one, moves no other draw. A path names site,
task, round and attempt, so that a fault befalls the same site in the same attempt however sums are formed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.config import finite
from common.errors import Code, Refusal
from common.orders import Task
from common.randomness import child_numpy
from common.ranges import share
from simulations.resampling import mixed

Place = tuple[int, Task, int, int]  # site, task, round, attempt
Moment = Literal["working", "worked", "reported"]
MOMENTS: tuple[Moment, ...] = ("working", "worked", "reported")
MOST_SECONDS, MOST_SPREAD = 1e7, 5.0
DAY, SLOTS = 86400.0, 1440  # a site's hours begin at one of so many moments of the period
_AT_ONCE = 2**16  # sites that are looked at together
_REMEMBERED = 2**14  # sites whose pace is kept; it can be drawn again


def lost(seed: int, chance: float, place: Place) -> bool:
    """Whether a site's answers of an attempt are lost."""
    return bool(chance) and bool(child_numpy(seed, "dropout", *place).random() < chance)


def stage_of_loss(seed: int, place: Place, stages: int) -> int:
    """At which of the stages of an attempt a loss begins, from 0 on."""
    return int(child_numpy(seed, "stage of dropout", *place).integers(stages))


@dataclass(frozen=True, kw_only=True)
class StragglerSettings:
    """How long sites take for an order of work, in simulated seconds; whatever else they are asked they answer at once.

    seconds             median over sites of what an answer takes      seconds_per_record  more for each of its records
    spread  of sites' paces, which hold for the whole run: standard deviation of their logarithm (log-normal)
    jitter  the same from attempt to attempt at one site
    slow    share of sites that are slow      factor  how many times as long these take
    """

    seconds: float = 0.0
    seconds_per_record: float = 0.0
    spread: float = 0.0
    jitter: float = 0.0
    slow: float = 0.0
    factor: float = 1.0

    def __post_init__(self) -> None:
        for name in ("seconds", "seconds_per_record"):
            finite(getattr(self, name), f"world.faults.stragglers.{name}", at_least=0, at_most=MOST_SECONDS)
        for name in ("spread", "jitter"):
            finite(getattr(self, name), f"world.faults.stragglers.{name}", at_least=0, at_most=MOST_SPREAD)
        share(self.slow, "world.faults.stragglers.slow")
        finite(self.factor, "world.faults.stragglers.factor", at_least=1, at_most=1e6)
        if not self.seconds + self.seconds_per_record:
            why = "an answer takes no time, so no clock would go on"
            raise _invalid("world.faults.stragglers", why, "Give seconds, or seconds_per_record")
        if bool(self.slow) != (self.factor > 1):
            why = "a share of slow sites and how much slower they are belong together"
            raise _invalid("world.faults.stragglers", why, "Give both slow and factor, or neither")

    def usual(self, seed: int, site: int, records: int) -> float:
        """Seconds that the site takes in the middle of its own attempts."""
        return (self.seconds + self.seconds_per_record * records) * _pace(self, seed, site)

    def quickest(self, seed: int, site: int, records: int) -> float:
        """Seconds that it takes at least, but for one attempt in thirty thousand."""
        return self.usual(seed, site, records) * math.exp(-4 * self.jitter)

    def taken(self, seed: int, place: Place, records: int) -> float:
        """Seconds that it takes in one attempt."""
        usual = self.usual(seed, place[0], records)
        return usual * math.exp(self.jitter * child_numpy(seed, "jitter", *place).normal()) if self.jitter else usual


@lru_cache(_REMEMBERED)
def _pace(settings: StragglerSettings, seed: int, site: int) -> float:
    slow = settings.slow and child_numpy(seed, "slow", site).random() < settings.slow
    own = settings.spread * child_numpy(seed, "pace", site).normal() if settings.spread else 0.0
    return math.exp(own) * (settings.factor if slow else 1.0)


@dataclass(frozen=True)
class Crash:
    """One crash of a site's process.

    moment  "working": when it was done with `share` of an order; "worked": before its answer left; "reported": after it
    away    seconds until it is back
    """

    moment: Moment
    share: float
    away: float


@dataclass(frozen=True, kw_only=True)
class CrashSettings:
    """Sites whose process dies over an order of work, and is started anew on what it has on disk.

    chance   of it in every attempt that the site works for
    seconds  median time until it is back, simulated      spread  standard deviation of the logarithm of that time
    """

    chance: float
    seconds: float
    spread: float = 0.0

    def __post_init__(self) -> None:
        share(self.chance, "world.faults.crashes.chance")
        finite(self.seconds, "world.faults.crashes.seconds", above=0, at_most=MOST_SECONDS)
        finite(self.spread, "world.faults.crashes.spread", at_least=0, at_most=MOST_SPREAD)

    def drawn(self, seed: int, place: Place) -> Crash | None:
        """The crash of a site in one attempt."""
        draw = child_numpy(seed, "crash", *place)
        if draw.random() >= self.chance:
            return None
        moment, part = MOMENTS[int(draw.integers(len(MOMENTS)))], float(draw.random())
        return Crash(moment, part, self.seconds * math.exp(self.spread * draw.normal()))


@dataclass(frozen=True, kw_only=True)
class AvailabilitySettings:
    """Hours in which a site is up, at the same time of every period. What it has begun by then it brings to its end.

    share           of the period that every site is up
    period_seconds  a day, if left out
    spread          how far apart the hours of sites begin, as a share of the period: 0 at once, 1 round the clock
    """

    share: float
    period_seconds: float = DAY
    spread: float = 1.0

    def __post_init__(self) -> None:
        finite(self.share, "world.faults.availability.share", above=0, below=1)
        finite(self.period_seconds, "world.faults.availability.period_seconds", above=0, at_most=MOST_SECONDS)
        finite(self.spread, "world.faults.availability.spread", at_least=0, at_most=1)

    def up(self, seed: int, site: int, moment: float) -> bool:
        """Whether the site is up at this moment."""
        return bool(self._open(moment)[_slots(seed, np.array([site]))[0]])

    def count(self, seed: int, first: int, last: int, moment: float) -> int:
        """How many sites of these ids, both ends included, are up."""
        return int(_begins(seed, first, last)[self._open(moment)].sum())

    def _open(self, moment: float) -> NDArray[np.bool_]:
        """For each slot in which the hours of a site may begin, whether it is up now."""
        begins = np.arange(SLOTS) * (self.spread / SLOTS)
        return (moment / self.period_seconds - begins) % 1.0 < self.share


def _slots(seed: int, sites: NDArray[np.int64]) -> NDArray[np.int64]:
    """In which slot of the period the hours of each site begin."""
    return (mixed(sites, _hours(seed)) % np.uint64(SLOTS)).astype(np.int64)


@lru_cache(16)
def _begins(seed: int, first: int, last: int) -> NDArray[np.int64]:
    """How many sites of these ids begin in each slot."""
    found = np.zeros(SLOTS, np.int64)
    for start in range(first, last + 1, _AT_ONCE):
        found += np.bincount(_slots(seed, np.arange(start, min(start + _AT_ONCE, last + 1))), minlength=SLOTS)
    return found


@lru_cache(16)
def _hours(seed: int) -> int:
    return int(child_numpy(seed, "hours").integers(2**53))


@dataclass(frozen=True, kw_only=True)
class FaultSettings:
    """What goes wrong in a simulated world, by seed.

    dropout       chance that a site's report of an attempt is lost, after it has worked and been charged
    stragglers    how long sites take; with it the world has a clock, and deadlines are held against it
    crashes       sites that die in mid-work      availability  hours in which a site is up; both need the clock
    """

    dropout: float = 0.0
    stragglers: StragglerSettings | None = None
    crashes: CrashSettings | None = None
    availability: AvailabilitySettings | None = None

    def __post_init__(self) -> None:
        share(self.dropout, "world.faults.dropout")
        idle = [name for name in ("crashes", "availability") if getattr(self, name)]
        if idle and not self.timed:
            why = "a world has no clock until its sites take time"
            raise _invalid(f"world.faults.{idle[0]}", why, "Give [world.faults.stragglers] as well")

    @property
    def timed(self) -> bool:
        """Whether the world has a clock of its own."""
        return self.stragglers is not None


NO_FAULTS = FaultSettings()


def _invalid(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.CONFIG_INVALID, what, why, do)
