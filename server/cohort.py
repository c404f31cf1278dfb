"""Who takes part in a round, and who no longer does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import Code, Refusal
from common.orders import Task
from common.randomness import child_numpy
from common.work import Work
from server.clock import SYSTEM, Clock

# A site that answers with one of these will not change its mind in this run.
FINAL = frozenset(
    {
        Code.BUDGET_EXHAUSTED,
        Code.COHORT_TOO_SMALL,
        Code.DATA_INVALID,
        Code.E_MANIFEST,
        Code.LEDGER_ROLLED_BACK,
        Code.LEDGER_TAMPERED,
        Code.MODEL_INVALID,
        Code.POLICY_DATA,
        Code.POLICY_MODEL,
        Code.POLICY_PRIVACY,
        Code.POLICY_RELEASE,
        Code.POLICY_SECAGG,
        Code.POLICY_TASK,
    }
)


class Patience:
    """Which sites kept a round waiting. A silent site is left out for 1, 2, 4, … rounds, then asked again."""

    def __init__(self) -> None:
        self._silent: dict[int, int] = {}
        self._pause: dict[int, int] = {}

    def note(self, site: int, *, silent: bool) -> None:
        """Remember whether the site answered."""
        if not silent:
            self._silent.pop(site, None)
            self._pause.pop(site, None)
            return
        self._silent[site] = self._silent.get(site, 0) + 1
        self._pause[site] = min(2 ** (self._silent[site] - 1), 16)

    def asked(self, cohort: Iterable[int], quorum: int) -> tuple[int, ...]:
        """The sites of the cohort to ask now; those that pause come back when the quorum needs them."""
        sites = tuple(cohort)
        ready = tuple(site for site in sites if not self._pause.get(site))
        self._pause = {site: left - 1 for site, left in self._pause.items() if left}
        return ready if len(ready) >= quorum else sites


@dataclass(frozen=True)
class Eligible:
    """The sites that a round may ask, without a list of all of them.

    present  that are here      excluded  that have refused for good      turn  whose turn it is; None: everybody's
    """

    present: Collection[int]
    excluded: Collection[int] = ()
    turn: Collection[int] | None = None

    def __contains__(self, site: object) -> bool:
        return site in self.present and site not in self.excluded and (self.turn is None or site in self.turn)

    def __len__(self) -> int:
        if self.turn is not None:
            return sum(site in self for site in self.turn)
        return len(self.present) - sum(site in self.present for site in self.excluded)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(site for site in (self.present if self.turn is None else self.turn) if site in self))


def wait_for(quorum: int, eligible: Callable[[], Eligible], seconds: float, clock: Clock = SYSTEM) -> Eligible:
    """Who may be asked, once they reach the quorum. Errors: Refusal E_TOO_FEW when they have not within `seconds`."""
    end = clock.now() + seconds
    while True:
        found = eligible()
        if len(found) >= quorum:
            return found
        if clock.now() > end:
            raise Refusal(
                Code.E_TOO_FEW,
                f"Round not started with {len(found)} sites",
                f"the quorum is {quorum}, and {len(found.excluded)} sites have refused",
                "Start more sites, or lower the quorum if every site agrees",
            )
        clock.sleep(clock.look_seconds)


def cohort_of(work: Work, eligible: Eligible, place: tuple[Task, int, int]) -> tuple[int, ...]:
    """The sites of one attempt, by id: all that are eligible, or those that the job's seed draws of them.

    place  task, round and attempt
    With `cohort`, so many of all sites in the order of a shuffled deck, whoever is away skipped. With `site_rate`,
    each site by a chance of its own. Neither lowers an epsilon here: the coordinator sees who is asked.
    """
    asked, ids = work.job.aggregation, work.roster.ids
    if asked.cohort is None and asked.site_rate is None:
        return tuple(eligible)
    draw = child_numpy(work.job.seed, "cohort", *place)
    if asked.site_rate is not None:
        count = int(draw.binomial(len(ids), asked.site_rate))
        return tuple(sorted(site for site in _dealt(ids, count, draw) if site in eligible))
    wanted = min(asked.cohort or 0, len(eligible))
    return tuple(sorted(itertools.islice((site for site in _deck(ids, wanted, draw) if site in eligible), wanted)))


def _deck(ids: Sequence[int], wanted: int, draw: np.random.Generator) -> Iterator[int]:
    """All ids in random order; of many some are drawn first, and more while these do not suffice."""
    seen, count = set[int](), max(1, 2 * wanted)
    while len(seen) < len(ids):
        fresh = [site for site in _dealt(ids, min(len(ids), count), draw) if site not in seen]
        seen.update(fresh)
        yield from fresh
        count *= 16


def _dealt(ids: Sequence[int], count: int, draw: np.random.Generator) -> list[int]:
    """So many different ids in random order, in time and memory of their number where that is small."""
    return [ids[int(place)] for place in draw.choice(len(ids), count, replace=False)]
