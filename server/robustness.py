"""What a vote over random groups promises against lying sites, before any round: a guarantee, or a chance."""

from __future__ import annotations

from dataclasses import dataclass

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
    """What a rule over `groups` random groups of `sites` promises against `liars` lying sites.

    votes     whether it outvotes lies at all; otherwise it bounds them, or (with one sum) does nothing
    outvoted  spoiled groups that it outvotes
    needed    groups that it takes to outvote `liars`
    lost      chance that a round's draw puts liars into more groups than are outvoted, if all sites take part; 0 where
              the guarantee holds, for a site is in one group only
    """

    sites: int
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
        shape = f"{self.sites} sites in {self.groups} groups"
        if not self.votes:
            return f"{shape}: what lying sites do to an update is bounded, and nobody is outvoted."
        if self.holds:
            return f"{shape}: up to {self.outvoted} lying sites are outvoted in every round, whatever they send."
        return (
            f"{shape} outvote {self.outvoted} lying sites, not {self.liars}: {self.needed} groups are needed. "
            f"{self.liars} lying sites win a round's draw with a chance of {self.lost:.2g}."
        )


def promise(combine: Combine, *, sites: int, groups: int, liars: int | None = None) -> Promise:
    """The promise of a rule over `groups` of `sites`, for the liars it was made for or for so many.

    Errors: ValueError for more groups or liars than sites.
    """
    liars = combine.liars if liars is None else liars
    outvoted = sum(combine.fewest(lying) <= groups for lying in range(1, groups + 1)) if combine.votes else 0
    return Promise(
        sites=sites,
        groups=groups,
        liars=liars,
        votes=combine.votes,
        outvoted=outvoted,
        needed=combine.fewest(liars),
        lost=spoiled_chance(sites, liars, groups, outvoted),
    )
