"""Rules that vote on each coordinate by itself: median, trimmed mean, mean around the median.

Guarantees are for m rows of which at most f lie, with 2 f < m. V is the spread of the honest rows, the mean of
|x_i - mean|^2 over any m - f of them, and |update - their mean|^2 <= kappa * V (Allouah et al. 2023).
"""

from __future__ import annotations

import numpy as np

from server.strategies.strategy import Flat64, Rows64
from server.strategies.voting import Rule, majority


def _median(rows: Rows64, _: int) -> Flat64:
    middle: Flat64 = np.median(rows, axis=0)
    return middle


def _trimmed_mean(rows: Rows64, liars: int) -> Flat64:
    kept: Rows64 = np.sort(rows, axis=0)[liars : len(rows) - liars]
    averaged: Flat64 = kept.mean(axis=0)
    return averaged


def _mean_around_median(rows: Rows64, liars: int) -> Flat64:
    """In sorted order the nearest m - f values are neighbours; `start` counts lower ones for which a higher one is
    nearer. The lower of two equally near ones is taken.
    """
    ranked, middle, keep = np.sort(rows, axis=0), np.median(rows, axis=0), len(rows) - liars
    start = np.zeros(rows.shape[1], np.int64)
    for low in range(liars):
        start += ranked[low + keep] - middle < middle - ranked[low]
    total: Flat64 = np.zeros(rows.shape[1])
    for place, values in enumerate(ranked):
        total += np.where((start <= place) & (place < start + keep), values, 0.0)
    return total / keep


MEDIAN = Rule(_median, majority)
"""Coordinate-wise median.

Guarantee: every coordinate lies between those of two honest rows; kappa <= 4 (1 + f / (m - 2f))^2.
Source: Yin et al. 2018, option I; kappa by Allouah et al. 2023.
"""

TRIMMED_MEAN = Rule(_trimmed_mean, majority)
"""Coordinate-wise mean without the f largest and the f smallest.

Guarantee: every coordinate lies between those of two honest rows; kappa <= 6 f / (m - 2f) (1 + f / (m - 2f)).
Source: Yin et al. 2018, option II; kappa by Allouah et al. 2023.
"""

MEAN_AROUND_MEDIAN = Rule(_mean_around_median, majority)
"""Coordinate-wise mean of the m - f values nearest to the median (MeaMed).

Guarantee: no value that is taken is farther from the median than the farthest honest one;
kappa <= 4 f / (m - f) (1 + k), k that of the median: every lie that is taken has its own honest value that is left
and no nearer. Source: Xie, Koyejo and Gupta 2018 (mean around median).
"""
