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


def spoiled_chance(sites: int, liars: int, groups: int) -> float:
    """Probability that `liars` lying sites among `sites` sit in at least half of `groups` equal random groups.

    0 where 2 * liars < groups: each spoils one group at most, so no draw can go wrong. Otherwise exact, by counting
    placements (hypergeometric, inclusion and exclusion).
    Errors: ValueError if the groups are not of equal size.
    """
    size, rest = divmod(sites, groups)
    if rest or not 0 <= liars <= sites:
        raise ValueError("groups must be equal, and liars are sites")
    total = comb(sites, liars)

    def exactly(hit: int) -> int:
        """Placements in which every one of `hit` chosen groups has a liar and no other group has one."""
        return sum((-1) ** i * comb(hit, i) * comb((hit - i) * size, liars) for i in range(hit + 1))

    bad = range((groups + 1) // 2, min(groups, liars) + 1)
    return sum(comb(groups, hit) * exactly(hit) for hit in bad) / total
