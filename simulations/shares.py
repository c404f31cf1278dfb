"""Splits with a shape: sizes by a power law, few classes a site, groups with sites of their own, homes kept whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal

Rows = NDArray[np.int64]


def by_power(count: int, sites: int, minimum: int, exponent: float, stream: np.random.Generator) -> list[Rows]:
    """Records at random; site k gets `minimum` and a share of the rest that falls as k^-exponent, the first the most.

    Guarantee: sizes never rise from one site to the next. `count` holds the minimum of all sites.
    """
    weights = np.arange(1, sites + 1) ** -exponent
    room = (count - sites * minimum) * weights / weights.sum()
    sizes = np.floor(room).astype(np.int64)
    sizes[: count - sites * minimum - int(sizes.sum())] += 1  # what rounding left, to the first sites
    return list(np.split(stream.permutation(count), np.cumsum(sizes + minimum)[:-1]))


def by_classes(labels: NDArray[np.int64], sites: int, classes: int, stream: np.random.Generator) -> list[Rows]:
    """Every site holds records of exactly `classes` classes; a class is shared evenly by the sites that have it.

    Errors: Refusal CONFIG_INVALID where there are fewer classes, where a class would belong to nobody, or where it has
    fewer records than sites.
    """
    known = np.unique(labels)
    if classes > len(known):
        raise _impossible(f"{classes} classes a site", f"the data have {len(known)}", "Ask for fewer classes")
    if sites * classes < len(known):
        why = f"{sites} sites with {classes} each leave some of {len(known)} classes to nobody"
        raise _impossible(f"{classes} classes a site", why, "Use more sites or more classes a site")
    owners = _owners(len(known), sites, classes, stream)
    dealt: list[list[Rows]] = [[] for _ in range(sites)]
    for place, label in enumerate(known):
        rows = stream.permutation(np.flatnonzero(labels == label))
        if len(rows) < len(owners[place]):
            why = f"class {label} has {len(rows)} records for {len(owners[place])} sites"
            raise _impossible(f"{classes} classes a site", why, "Use fewer sites, or fewer classes a site")
        for site, part in zip(owners[place], np.array_split(rows, len(owners[place])), strict=True):
            dealt[site].append(part)
    return [np.concatenate(parts) for parts in dealt]


def _owners(known: int, sites: int, classes: int, stream: np.random.Generator) -> list[list[int]]:
    """By class the sites that have it: each site takes those that fewest have so far, equals by lot."""
    owners: list[list[int]] = [[] for _ in range(known)]
    for site in range(sites):
        lots = stream.permutation(known)
        for place in sorted(range(known), key=lambda each: (len(owners[each]), lots[each]))[:classes]:
            owners[place].append(site)
    return owners


def by_group(groups: Sequence[str], sites: int, affinity: float, stream: np.random.Generator) -> list[Rows]:
    """Every group has sites of its own, in number as its records ask, at least one; they share `affinity` of its
    records. What remains of all groups goes to all sites alike. Sites of one group stand together, in its order of
    first appearance.

    Errors: Refusal CONFIG_INVALID for fewer sites than groups.
    """
    names = np.asarray(groups)
    found = list(dict.fromkeys(groups))
    if sites < len(found):
        why = f"{len(found)} groups need a site each"
        raise _impossible(f"{sites} sites by group", why, "Use more sites, or another attribute")
    records = {name: np.flatnonzero(names == name) for name in found}
    own = dict.fromkeys(found, 1)
    for _ in range(sites - len(found)):
        own[max(found, key=lambda name: len(records[name]) / own[name])] += 1
    dealt: list[Rows] = []
    rest: list[Rows] = []
    for name in found:
        rows = stream.permutation(records[name])
        cut = round(affinity * len(rows))
        dealt += np.array_split(rows[:cut], own[name])
        rest.append(rows[cut:])
    shared = np.array_split(stream.permutation(np.concatenate(rest)), sites)
    return [np.concatenate(parts) for parts in zip(dealt, shared, strict=True)]


def whole_homes(homes: Sequence[str], sites: int, stream: np.random.Generator) -> list[Rows]:
    """All records of a home (a writer, a patient, a station) go to one site: by lot, each to the smallest so far.

    Errors: Refusal CONFIG_INVALID for more sites than homes.
    """
    names, places = np.unique(np.asarray(homes), return_inverse=True)
    if sites > len(names):
        why = f"{len(names)} homes cannot be dealt to more sites without being split"
        raise _impossible(f"{sites} sites of whole homes", why, "Use fewer sites")
    counts, sizes = np.bincount(places), np.zeros(sites, np.int64)
    site_of = np.zeros(len(names), np.int64)
    for rank, home in enumerate(stream.permutation(len(names))):
        site = rank if rank < sites else int(np.argmin(sizes))  # nobody is left without a home
        site_of[home] = site
        sizes[site] += counts[home]
    return [np.flatnonzero(site_of[places] == site) for site in range(sites)]


def _impossible(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.CONFIG_INVALID, f"{what} not dealt", why, do)
