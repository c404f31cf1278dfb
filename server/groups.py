"""Random groups of a cohort, each with a secure sum of its own, so that a minority of lying sites can be outvoted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import comb

import torch

from common.errors import Code, Refusal

TRIES = 100  # shuffles before groups of enough organisations count as impossible


def grouped(
    cohort: Collection[int],
    count: int,
    *,
    fits: Callable[[Sequence[int]], bool],
    draw: torch.Generator,
) -> tuple[tuple[int, ...], ...]:
    """`count` disjoint groups of nearly equal size that hold all of `cohort`, ids ascending in each.

    fits  whether a group may have a sum: its quorum and its organisations
    draw  decides who is with whom, and nothing secret
    Errors: Refusal E_TOO_FEW if no shuffle gives groups that all fit.
    """
    ids = sorted(cohort)
    for _ in range(TRIES if count > 1 else 1):
        order = torch.randperm(len(ids), generator=draw).tolist()
        groups = tuple(tuple(sorted(ids[place] for place in order[first::count])) for first in range(count))
        if all(fits(group) for group in groups):
            return groups
    raise Refusal(
        Code.E_TOO_FEW,
        f"{len(ids)} sites not parted into {count} groups",
        "some group would have too few sites or organisations for its sum",
        "Wait for more sites",
    )


def spoiled_chance(sites: int, liars: int, groups: int, outvoted: int | None = None) -> float:
    """Probability that `liars` lying sites among `sites` sit in more than `outvoted` of `groups` random groups.

    outvoted  spoiled groups that a rule bears; left out, as many as a majority does, (groups - 1) // 2
    Groups are those of `grouped`: of equal size, or of two sizes that differ by one. 0 where no more liars than
    `outvoted` lie: each spoils one group at most, so no draw can go wrong. Otherwise exact, by counting placements
    (hypergeometric, inclusion and exclusion).
    Errors: ValueError for more groups or liars than sites.
    """
    if not (0 <= liars <= sites and 1 <= groups <= sites):
        raise ValueError("liars are sites, and no group is empty")
    inside = [_inside(sites, liars, groups, some) for some in range(groups + 1)]

    def exactly(hit: int) -> int:
        """Placements that put a liar into `hit` groups and into no other."""
        return sum((-1) ** (hit - some) * comb(groups - some, hit - some) * inside[some] for some in range(hit + 1))

    bears = (groups - 1) // 2 if outvoted is None else outvoted
    return sum(exactly(hit) for hit in range(bears + 1, min(groups, liars) + 1)) / comb(sites, liars)


def _inside(sites: int, liars: int, groups: int, some: int) -> int:
    """Pairs of `some` groups and a placement of all liars within them."""
    size, larger = divmod(sites, groups)
    return sum(
        comb(larger, large) * comb(groups - larger, some - large) * comb(some * size + large, liars)
        for large in range(max(0, some - groups + larger), min(larger, some) + 1)
    )
