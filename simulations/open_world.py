"""A world in memory: a population of any size that a run reaches without orders, keys or ledgers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from common.errors import Code, Refusal
from common.identity import Signer
from common.secagg.rules import Rules
from common.work import Work
from server.checkpoints import State
from server.clock import SYSTEM, Clock
from server.closing import Before, Collected
from simulations.adversaries.band import Band
from simulations.course import Course
from simulations.engines.engine import Engine
from simulations.exact import ExactSums
from simulations.ground import Ground
from simulations.population import Population
from simulations.scenario import Scenario

MOST_ASKED = 2**13  # sites of one round, as in a manifest
MOST_NAMED = 2**24  # sites named by all rounds of a record together; it is read whole


@dataclass(frozen=True)
class OpenWorld:
    """`server.reach.Reach` of sites that have no secrets. `signer` is made for the run; `band`: those that lie."""

    ground: Ground
    engine: Engine
    signer: Signer
    course: Course
    band: Band | None = None

    @property
    def clock(self) -> Clock:
        """See `Reach`."""
        return self.course.clock if self.course.timed else SYSTEM

    def present(self) -> Collection[int]:
        """All sites that are up."""
        everybody = range(1, len(self.ground) + 1)
        return Here(everybody, self.course) if self.course.timed else everybody

    def offer(self, work: Work, run: bytes) -> Iterator[tuple[int, Code | None]]:
        """Nobody refuses here."""
        del work, run
        return iter(())

    def sums(self, work: Work, run: bytes, known: Mapping[int, str]) -> ExactSums:
        """See `Reach`."""
        del run, known
        return ExactSums(work, self.course, self.ground, self.engine, self.band)

    def collect(self, work: Work, run: bytes, state: State, before: Before) -> Collected:
        """There are no ledgers."""
        del work, run, before
        return Collected(state, {}, {}, {})


@dataclass(frozen=True)
class Here(Collection[int]):
    """The sites of a population that are up now, none of which is looked at before it is asked for."""

    everybody: range
    course: Course

    def __contains__(self, site: object) -> bool:
        return isinstance(site, int) and site in self.everybody and self.course.up(site)

    def __len__(self) -> int:
        return self.course.count()

    def __iter__(self) -> Iterator[int]:
        return (site for site in self.everybody if self.course.up(site))


def population_of(scenario: Scenario, ground: Ground) -> Population:
    """The sites of a scenario. Errors: Refusal CONFIG_INVALID for rounds, or a record, of too many sites."""
    asked, sites = scenario.job.aggregation, len(ground)
    expected = asked.cohort or sites * (asked.site_rate or 1.0)
    most = asked.cohort or min(sites, int(expected + 8 * expected**0.5) + 1 if asked.site_rate else sites)
    if most > MOST_ASKED:
        raise Refusal(
            Code.CONFIG_INVALID,
            f"Rounds of {most} sites",
            f"one sum holds at most {MOST_ASKED} reports",
            "Set aggregation.cohort or aggregation.site_rate",
        )
    if (named := most * scenario.job.rounds) > MOST_NAMED:
        raise Refusal(
            Code.CONFIG_INVALID,
            f"{scenario.job.rounds} rounds of {most} sites",
            f"the record would name {named} sites, more than the {MOST_NAMED} of one that can be read",
            "Play fewer rounds, or ask fewer sites in each",
        )
    rules = Rules(
        unmaskers_min=0,
        quorum_min=asked.quorum,
        orgs_min=1,
        sites_max=max(2, most),
        corrupt_max=0,
        overlap_min=0,
    )
    return Population(ground, rules)
