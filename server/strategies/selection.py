"""Rules that choose whole rows by how near they are to each other: Krum, Multi-Krum, Bulyan, least diameter.

Guarantees are for m rows of which at most f lie; V and kappa as in `coordinatewise`.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from server.strategies.coordinatewise import MEAN_AROUND_MEDIAN
from server.strategies.geometry import distances
from server.strategies.strategy import Flat64, Rows64
from server.strategies.voting import Rule, majority

MOST_SUBSETS = 20  # rows whose subsets are looked at one by one: at most 184756 of them
CHUNK = 1 << 12  # subsets at a time


def _ranked(square: Rows64, liars: int) -> NDArray[np.int64]:
    """Places of the rows from Krum's best score to the worst: the sum of squared distances to the m - f - 2 nearest
    others, one at least. Of equal scores (two rows may each be the other's nearest) that nearer to all goes first.
    """
    nearest = max(1, len(square) - liars - 2)
    scores = np.sort(square, axis=1)[:, 1 : nearest + 1].sum(axis=1)  # the first is the row itself
    return np.lexsort((square.sum(axis=1), scores))


def _krum(rows: Rows64, liars: int) -> Flat64:
    best: Flat64 = rows[_ranked(distances(rows), liars)[0]].copy()
    return best


def _multi_krum(rows: Rows64, liars: int) -> Flat64:
    best = _ranked(distances(rows), liars)[: len(rows) - liars]
    averaged: Flat64 = rows[np.sort(best)].mean(axis=0)
    return averaged


def _bulyan(rows: Rows64, liars: int) -> Flat64:
    """Krum m - 2f times, each time among the rows that are left; of these, coordinate-wise, the nearest m - 4f."""
    square, left = distances(rows), list(range(len(rows)))
    chosen = []
    for _ in range(len(rows) - 2 * liars):
        best = _ranked(square[np.ix_(left, left)], liars)[0]
        chosen.append(left.pop(int(best)))
    return MEAN_AROUND_MEDIAN.apply(rows[sorted(chosen)], 2 * liars)


def _least_diameter(rows: Rows64, liars: int) -> Flat64:
    """The mean of the m - f rows whose largest distance is the smallest; many may share one largest distance, and then
    those whose squared distances add up to least.
    """
    square, best, chosen = distances(rows), (np.inf, np.inf), np.arange(len(rows))
    subsets = np.array(list(combinations(range(len(rows)), len(rows) - liars)), np.int64)
    for start in range(0, len(subsets), CHUNK):
        some: NDArray[np.int64] = subsets[start : start + CHUNK]
        within = square[some[:, :, None], some[:, None, :]]
        across, together = within.max(axis=(1, 2)), within.sum(axis=(1, 2))
        first = np.lexsort((together, across))[0]
        if (found := (float(across[first]), float(together[first]))) < best:
            best, chosen = found, some[first]
    averaged: Flat64 = rows[chosen].mean(axis=0)
    return averaged


KRUM = Rule(_krum, lambda liars: 2 * liars + 3)
"""The row with the smallest sum of squared distances to its m - f - 2 nearest others.

Guarantee, for 2f + 2 < m: it is one of the rows, and kappa <= (sqrt(a) + sqrt(b))^2 with
a = 2 (m - f) (m - f - 2) / ((m - f - 1) (m - 2f - 1)) and b = (f + 1) / (m - 2f - 1). For the best score is at most the
mean score of the honest, 2 (m - f) (m - f - 2) / (m - f - 1) V, and m - 2f - 1 honest rows are among the chosen one and
its neighbours. Source: Blanchard et al. 2017.
"""

MULTI_KRUM = Rule(_multi_krum, lambda liars: 2 * liars + 3)
"""The mean of the m - f rows with the smallest of Krum's scores.

Guarantee: that of Krum, for the mean of the m - f best scores is no larger than the mean score of the honest.
Source: Blanchard et al. 2017 (Multi-Krum).
"""

BULYAN = Rule(_bulyan, lambda liars: 4 * liars + 3)
"""Coordinate-wise mean of the m - 4f values nearest to their median, of m - 2f rows that Krum chose one by one.

Guarantee, for 4f + 3 <= m: in each coordinate no value that is taken is farther from the median of the chosen rows
than the farthest honest one among them, so that one wild coordinate hides in no near row.
Source: El Mhamdi, Guerraoui and Rouault 2018.
"""

LEAST_DIAMETER = Rule(_least_diameter, majority, most=MOST_SUBSETS)
"""The mean of the m - f rows whose largest distance from each other is the smallest (MDA).

Guarantee, for 2f < m: |update - honest mean| <= 2 f / (m - f) times the diameter of the honest rows, so
kappa <= 8 f^2 / (m - f). Looks at all subsets, so m <= 20.
Source: El Mhamdi et al. 2020 (minimum diameter averaging).
"""
