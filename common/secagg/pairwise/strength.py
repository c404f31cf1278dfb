"""How many neighbours and how many shares: the numbers below which the guarantee would be worse than 2^-40.

Each of n sites deals shares to itself and to `degree` others that it chose at random; `threshold` of those rebuild
its secrets. Of the n, c side with the coordinator, and as many as the quorum leaves may drop out whenever the
coordinator likes. What may go wrong, and how often at most:

- for an honest site both secrets could be had: two groups of `threshold` holders meet in corrupt sites only. More
  than 2·threshold - 2 - degree of its choices would have to be corrupt: a hypergeometric tail;
- honest survivors fall apart into two parts whose sums could be told apart: a part of s honest sites, none of whose
  members missed more than degree + 1 - threshold of its choices, has all others among itself and the corrupt. A
  union over all parts of at most half the honest sites;
- so many holders are lost that some secret cannot be rebuilt: the attempt is lost, nothing leaks (2^-20).

In the complete graph nothing is left to chance: 2·threshold > n + c, which for c just below n/3 is 2n/3.
Source: Bell et al. 2020, section 4; Bonawitz et al. 2017, section 6.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal

SECURITY = 40  # bits: privacy fails with a probability of at most 2^-SECURITY, whatever the coordinator does
LIVENESS = 20  # bits: an attempt that keeps its quorum is lost with a probability of at most 2^-LIVENESS
COMPLETE = 128  # up to so many sites all are neighbours of all

_Logs = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """degree: peers that each site chooses. threshold: of them and itself, as many as rebuild its secrets."""

    degree: int
    threshold: int


@lru_cache(maxsize=256)
def shape_of(sites: int, corrupt: int, quorum: int) -> Shape:
    """The smallest shape that keeps the guarantee.

    sites    n, asked in this attempt       corrupt  c, of them side with the coordinator
    quorum   fewest survivors with which the attempt must succeed
    Errors: Refusal E_POLICY if none does, with the numbers.
    """
    found = _complete(sites, corrupt) if sites <= COMPLETE else _regular(sites, corrupt, quorum)
    if found.threshold > min(quorum, sites):
        raise Refusal(
            Code.E_POLICY,
            f"{sites} sites, {corrupt} of them corrupt, with a quorum of {quorum}",
            f"pairwise masks need {found.threshold} survivors: with fewer, both secrets of a site could be had",
            f"Raise aggregation.quorum to {found.threshold}, or let governance count on fewer corrupt sites"
            if found.threshold <= sites
            else "Let governance count on fewer corrupt sites, or use another protocol",
        )
    return found


def exposure(sites: int, corrupt: int, shape: Shape) -> float:
    """log2 of the probability that the graph gives any honest site or part of them away; -inf: it cannot."""
    honest = sites - corrupt
    spare = shape.degree + 1 - shape.threshold
    twice = math.log(honest) + _tail(sites - 1, np.array([corrupt]), shape.degree, shape.threshold - spare)[0]
    parts = np.arange(1, honest // 2 + 1)
    closed = _tail(sites - 1, parts - 1 + corrupt, shape.degree, shape.degree - spare)
    apart = np.logaddexp.reduce(_choose(honest, parts) + parts * closed, initial=-np.inf)
    return float(np.logaddexp(twice, apart)) / math.log(2)


def loss(sites: int, dropped: int, shape: Shape) -> float:
    """log2 of the probability that some site's secrets cannot be rebuilt when `dropped` sites are gone."""
    tail = _tail(sites - 1, np.array([dropped]), shape.degree, shape.degree - shape.threshold + 1)[0]
    return float(math.log(sites) + tail) / math.log(2)


def _complete(sites: int, corrupt: int) -> Shape:
    return Shape(sites - 1, (sites + corrupt) // 2 + 1)


def _regular(sites: int, corrupt: int, quorum: int) -> Shape:
    """The smallest degree with the smallest threshold that will do; else the complete graph."""
    if corrupt >= sites or quorum > sites:
        return _complete(sites, corrupt)
    for degree in range(2, sites - 1):
        for threshold in range(_threshold(sites, corrupt, degree), degree + 1):
            shape = Shape(degree, threshold)
            if loss(sites, sites - quorum, shape) > -LIVENESS:
                break
            if exposure(sites, corrupt, shape) <= -SECURITY:
                return shape
    return _complete(sites, corrupt)


def _threshold(sites: int, corrupt: int, degree: int) -> int:
    """The least threshold at which an honest site chose too few corrupt ones for both secrets to be had."""
    count = np.arange(degree + 1)
    terms = _choose(corrupt, count) + _choose(sites - 1 - corrupt, degree - count) - _choose(sites - 1, degree)
    tails = np.logaddexp.accumulate(terms[::-1])[::-1]
    few = tails <= -SECURITY * math.log(2) - math.log(sites - corrupt)
    most = int(np.argmax(few)) - 1 if few.any() else degree  # corrupt choices that must be reckoned with
    return (degree + 1 + most) // 2 + 1


def _tail(population: int, marked: NDArray[np.int64], drawn: int, least: int) -> _Logs:
    """ln P(X >= least) of marked ones among `drawn` of `population`, for each entry of `marked`."""
    count = np.arange(max(least, 0), drawn + 1)
    if not count.size:
        return np.full(marked.shape, -np.inf)
    column = marked[:, None]
    terms = _choose(column, count) + _choose(population - column, drawn - count) - _choose(population, drawn)
    tails: _Logs = np.minimum(np.logaddexp.reduce(terms, axis=1), 0.0)
    return tails


def _choose(n: NDArray[np.int64] | int, k: NDArray[np.int64] | int) -> _Logs:
    """ln of the binomial coefficient; -inf where k is outside 0 … n."""
    n, k = np.broadcast_arrays(np.asarray(n), np.asarray(k))
    inside = (k >= 0) & (k <= n)
    table = _log_factorials()
    logs: _Logs = table[np.where(inside, n, 0)] - table[np.where(inside, k, 0)] - table[np.where(inside, n - k, 0)]
    return np.where(inside, logs, -np.inf)


@lru_cache(maxsize=1)
def _log_factorials() -> _Logs:
    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, 2**13 + 1)))))
