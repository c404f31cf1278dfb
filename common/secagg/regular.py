"""Masks for k of the unmasking sites instead of all: who masks for whom, and what that leaves to a lying coordinator.

Every site takes the first k unmasking sites of a session in an order that its own lot gives, drawn from what governance
signed. Two things are weaker than with masks for all, and the manifest is refused where they are too weak:

- A site may have no honest unmasking site among its k: `exposure`, exact.
- Each unmasking site sees only the reports that are masked for it. A coordinator that shows them sets which do not fit
  opens nothing but the sum of a closed set: sites all of whose honest unmasking sites answered for sites of the same
  set. Such a set can be smaller than the quorum: `smallest_sum`, a bound.

Source: anytrust late masking, `alm-v1`; the graph of Bell et al. 2020 ("Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", k-regular instead of complete), here between sites and unmasking sites.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np

_LOT = b"alm-v1/maskers\0"
_WORD = 16  # bytes of a lot for one unmasking site
CHANCE = Fraction(1, 2**40)  # that a manifest exposes some site, and again that a closed set is smaller than stated
COUNTED = 2**20  # sets of unmasking sites that are looked at one by one; beyond that chance bounds them


@dataclass(frozen=True)
class Lots:
    """The graph of a manifest: everything that decides who masks for whom. All of it is public and signed.

    manifest   h_F             unmaskers  ids of all that may unmask, ascending
    sites      ids of all      masks      k
    """

    manifest: bytes
    unmaskers: tuple[int, ...]
    sites: tuple[int, ...]
    masks: int

    def maskers(self, chosen: tuple[int, ...], site: int) -> tuple[int, ...]:
        """`maskers` of one site in a session of the unmasking sites `chosen`."""
        return maskers(self.manifest, self.unmaskers, chosen, self.masks, site)


def order_of(manifest: bytes, unmaskers: Sequence[int], site: int) -> tuple[int, ...]:
    """All unmasking sites in the order in which `site` would mask for them.

    Lot: SHAKE-256(SHA-256("alm-v1/maskers" ‖ 0x00 ‖ h_F ‖ LE64(site))), 16 bytes for each of the unmasking sites by
    ascending id; these are sorted by their 16 bytes, the smallest first, equal ones by id.

    manifest  h_F, 32 bytes
    """
    seed = hashlib.sha256(_LOT + manifest + struct.pack("<Q", site)).digest()
    lot = hashlib.shake_256(seed).digest(_WORD * len(unmaskers))
    words = {each: lot[_WORD * place : _WORD * (place + 1)] for place, each in enumerate(unmaskers)}
    return tuple(sorted(unmaskers, key=lambda each: (words[each], each)))


@lru_cache(maxsize=2**15)
def maskers(
    manifest: bytes, unmaskers: tuple[int, ...], chosen: tuple[int, ...], masks: int, site: int
) -> tuple[int, ...]:
    """The first `masks` of the site's order that are in a session, in the session's own order.

    chosen  unmasking sites of the session
    """
    here = frozenset(chosen)
    mine = frozenset([each for each in order_of(manifest, unmaskers, site) if each in here][:masks])
    return tuple(each for each in chosen if each in mine)


def exposure(*, sites: int, unmaskers: int, corrupt: int, masks: int, away: int, recovered: int) -> Fraction:
    """Chance that some site has no honest unmasking site left, whomever a coordinator leaves out and has recovered.

    unmaskers  M, of whom `corrupt` were corrupt before the manifest was signed
    away       d, unmasking sites that a session may do without: the coordinator chooses them, knowing all lots
    recovered  r, honest ones whose keys it may have rebuilt for a number

    A site with H honest ones among the first k + d of its order keeps at least H - d - r of them in a session, and the
    worst coordinator leaves it just these. So the chance is at most n · P[H <= d + r], H hypergeometric; exact but for
    the sum over sites.
    """
    drawn, spared, honest = masks + away, away + recovered, unmaskers - corrupt
    bad = sum(comb(honest, each) * comb(corrupt, drawn - each) for each in range(min(spared, drawn) + 1))
    return min(Fraction(1), Fraction(sites * bad, comb(unmaskers, drawn)))


def least_masks(*, sites: int, unmaskers: int, corrupt: int, away: int, recovered: int) -> int:
    """The least k whose `exposure` is at most 2^-40; masks for all of a session always do."""
    for masks in range(2, unmaskers - away):
        chance = exposure(
            sites=sites, unmaskers=unmaskers, corrupt=corrupt, masks=masks, away=away, recovered=recovered
        )
        if chance <= CHANCE:
            return masks
    return unmaskers - away


def ideal_masks(sites: int, corrupt_share: float) -> int:
    """k for very many unmasking sites, each corrupt with this chance by itself, all present and none recovered.

    n · share^k <= 2^-40. A rule of thumb: manifests are checked by `exposure`.
    """
    return math.ceil((40 + math.log2(sites)) / -math.log2(corrupt_share))


@lru_cache(maxsize=64)
def smallest_sum(lots: Lots, *, size: int, known: int, each: int, colluding: int = 0) -> int:
    """A lower bound for the number of reports in a sum that a lying coordinator opens, colluding sites' among them.

    size       m, unmasking sites of a session
    known      corrupt and recovered ones among them, at most
    each       s_c, reports that an unmasking site answers for at least
    colluding  sites that side with the coordinator, at most, corrupt unmasking sites among them: their reports may fill
               any set

    With b honest unmasking sites a closed set T has b · s_c entries in their sets, of which each report makes at most
    min(k, b): |T| >= b · s_c / min(k, b). All honest sites of T mask for these b and for known ones only; where too
    few sites do, b must be larger. How many do is counted over all choices of these unmasking sites, or, where there
    are too many choices, bounded with chance 2^-40 (Chernoff's bound and the number of choices).
    """
    for inside in range(known + 1, size + 1):
        honest = inside - known
        least = -(-honest * each // min(lots.masks, honest))
        if _most_inside(lots, size)[inside] >= max(1, least - colluding):
            return least
    return len(lots.sites)


def fewest_masked(lots: Lots) -> int:
    """Reports that the least chosen unmasking site sees when all sites report and all unmasking sites are present."""
    seen = dict.fromkeys(lots.unmaskers, 0)
    for site in lots.sites:
        for each in lots.maskers(lots.unmaskers, site):
            seen[each] += 1
    return min(seen.values())


@lru_cache(maxsize=64)
def _most_inside(lots: Lots, size: int) -> tuple[int, ...]:
    """By w = 0 … m: the most sites that mask for no others than some w unmasking sites of a session."""
    sessions = comb(len(lots.unmaskers), size)
    if sessions * (2**size + len(lots.sites)) <= COUNTED:
        return tuple(np.max([_counted(lots, chosen) for chosen in combinations(lots.unmaskers, size)], axis=0).tolist())
    return tuple(_likely(lots, size, sessions))


def _counted(lots: Lots, chosen: tuple[int, ...]) -> list[int]:
    """By w: the most sites inside w of these unmasking sites; sums over subsets, one unmasking site after the other."""
    inside = np.zeros(1 << len(chosen), np.int64)
    bits = {each: 1 << place for place, each in enumerate(chosen)}
    for site in lots.sites:
        inside[sum(bits[each] for each in lots.maskers(chosen, site))] += 1
    for place in range(len(chosen)):
        halves = inside.reshape(-1, 2, 1 << place)
        halves[:, 1] += halves[:, 0]
    most, sizes = np.zeros(len(chosen) + 1, np.int64), np.bitwise_count(np.arange(1 << len(chosen), dtype=np.uint64))
    np.maximum.at(most, sizes, inside)
    return [int(each) for each in most]


def _likely(lots: Lots, size: int, sessions: int) -> Iterator[int]:
    """By w: what no choice of session and of w unmasking sites exceeds, but for chance 2^-40 over all w."""
    count = len(lots.sites)
    for inside in range(size + 1):
        share = comb(inside, lots.masks) / comb(size, lots.masks)
        choices = math.log(sessions) + math.log(comb(size, inside)) + math.log(size + 1)
        yield _tail(count, share, choices - math.log(CHANCE))


def _tail(count: int, share: float, nats: float) -> int:
    """The least x with P[X > x] <= e^-nats by Chernoff's bound, X binomial with `count` trials of chance `share`."""
    if share in (0.0, 1.0):
        return round(count * share)
    least, most = math.floor(count * share), count
    while least < most:
        middle = (least + most) // 2
        if count * _divergence((middle + 1) / count, share) >= nats:
            most = middle
        else:
            least = middle + 1
    return least


def _divergence(found: float, expected: float) -> float:
    """Of one coin from another, in nats; 0 below its expectation."""
    if found <= expected:
        return 0.0
    rest = (1 - found) * math.log((1 - found) / (1 - expected)) if found < 1 else 0.0
    return found * math.log(found / expected) + rest
