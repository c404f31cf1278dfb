"""What a vote over random groups promises against lying sites, before any round: a guarantee, or a chance."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

from server.groups import spoiled_chance
from server.strategies.strategy import Combine

LIMITS = (
    "Votes over grouped sums resist untargeted attacks (wrong labels, reversed, scaled or random updates). Backdoors "
    "stay open: a lie within what honest sites differ by is averaged in, and where sites hold different data, few "
    "lying sites can teach the model a patch or a rare kind of record."
)
UNBOUND = "One sum hides who lies and outvotes nobody: a single site moves the model as far as its update may reach."


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a rule over `groups` random groups of `cohort` of `sites` promises against `liars` lying sites.

    votes     whether it outvotes lies at all; otherwise it bounds them, or (with one sum) does nothing
    outvoted  spoiled groups that a rule of its kind outvotes among so many, if it is made for them
    needed    groups that it takes to outvote `liars`
    lost      chance that a round's draw puts liars into more groups than are outvoted, if the whole cohort takes part;
              0 where the guarantee holds, for a site is in one group only
    """

    sites: int
    cohort: int
    groups: int
    liars: int
    votes: bool
    outvoted: int
    needed: int
    lost: float

    @property
    def holds(self) -> bool:
        """Whether it may be called robust: no draw of groups and no lie can break the vote."""
        return self.votes and 0 < self.liars <= self.outvoted

    @property
    def words(self) -> str:
        """The promise in a sentence or two, for whoever plans a job or reads a report."""
        if self.groups == 1:
            return UNBOUND
        drawn = f"{self.cohort} of " if self.cohort < self.sites else ""
        shape = f"{drawn}{self.sites} sites in {self.groups} groups"
        if not self.votes:
            return f"{shape}: what lying sites do to an update is bounded, and nobody is outvoted."
        if self.holds:
            who = "1 lying site is" if self.liars == 1 else f"up to {self.liars} lying sites are"
            return f"{shape}: {who} outvoted in every round, whatever is sent."
        return (
            f"{shape} outvote {self.outvoted} lying sites, not {self.liars}: {self.needed} groups are needed. "
            f"{self.liars} lying sites win a round's draw with a chance of {self.lost:.2g}."
        )


def promise(
    combine: Combine, *, sites: int, groups: int, liars: int | None = None, cohort: int | None = None
) -> Promise:
    """The promise of a rule over `groups` of a random `cohort` of `sites`, or of all of them.

    liars  left out, those that the rule was made for
    Errors: ValueError for more groups or liars than sites.
    """
    liars, cohort = combine.liars if liars is None else liars, cohort or sites
    outvoted = sum(combine.fewest(lying) <= groups for lying in range(1, groups + 1)) if combine.votes else 0
    return Promise(
        sites=sites,
        cohort=cohort,
        groups=groups,
        liars=liars,
        votes=combine.votes,
        outvoted=outvoted,
        needed=combine.fewest(liars),
        lost=sum(
            chance * spoiled_chance(cohort, drawn, groups, outvoted) for drawn, chance in _drawn(sites, liars, cohort)
        ),
    )


def _drawn(sites: int, liars: int, cohort: int) -> list[tuple[int, float]]:
    """How many liars a cohort may hold, and with which chance (hypergeometric)."""
    counts = range(max(0, cohort - sites + liars), min(liars, cohort) + 1)
    return [(some, comb(liars, some) * comb(sites - liars, cohort - some) / comb(sites, cohort)) for some in counts]
