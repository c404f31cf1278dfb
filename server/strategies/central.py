"""Rules that look for a centre: geometric median, centred clipping, mean of bounded rows.

Guarantees are for m rows of which at most f lie; V and kappa as in `coordinatewise`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.strategies.geometry import coordinates, shortened, weighted
from server.strategies.strategy import Flat64, Rows64
from server.strategies.voting import Rule, majority

STEPS = 1000  # towards the geometric median; a dozen are enough
EXACT = 1e-10  # of the sum of unit vectors that is zero at the geometric median, for each row


def _geometric_median(rows: Rows64, _: int) -> Flat64:
    points = coordinates(rows)
    if (optimal := _optimal(points)).any():
        middle: Flat64 = rows[optimal].mean(axis=0)
        return middle
    return weighted(rows, _nearness(points, _descended(points)))


def _optimal(points: Rows64) -> NDArray[np.bool_]:
    """Which points are geometric medians: the pull of the others is no stronger than their own number."""
    pulls = np.array([np.linalg.norm(_units(points, here).sum(axis=0)) for here in points])
    same = (points[:, None] == points).all(axis=2).sum(axis=1)
    best: NDArray[np.bool_] = pulls <= same + EXACT * len(points)
    return best


def _descended(points: Rows64) -> Flat64:
    """The point with the smallest sum of distances, where it is none of `points`.

    Weiszfeld's step or Newton's, whichever goes down farther, from below the best of the points: so none is met.
    """
    here = _beside(points, min(points, key=lambda one: _lower(points, one, np.zeros_like(one))))
    for _ in range(STEPS):
        units, near = _units(points, here), 1 / np.linalg.norm(points - here, axis=1)
        if np.linalg.norm(units.sum(axis=0)) <= EXACT * len(points):
            break
        curve = near.sum() * np.eye(points.shape[1]) - (units.T * near) @ units
        straight = here + np.linalg.lstsq(curve, units.sum(axis=0), rcond=None)[0]
        steps = (weighted(points, _nearness(points, here)), straight)
        down, after = min(((_lower(points, there, here), there) for there in steps), key=lambda step: step[0])
        if not down < 0:
            break
        here = after
    return here


def _beside(points: Rows64, one: Flat64) -> Flat64:
    """A better point than `one` of the points, which is not optimal. Vardi and Zhang 2000."""
    others = points[(points != one).any(axis=1)]
    pull = np.linalg.norm(_units(others, one).sum(axis=0))
    towards = weighted(others, _nearness(others, one))
    beside: Flat64 = one + (1 - (len(points) - len(others)) / pull) * (towards - one)
    return beside


def _units(points: Rows64, here: Flat64) -> Rows64:
    """Directions from `here` to each point, zero where there is none."""
    away = points - here
    lengths = np.linalg.norm(away, axis=1, keepdims=True)
    units: Rows64 = np.divide(away, lengths, out=np.zeros_like(away), where=lengths > 0)
    return units


def _nearness(points: Rows64, here: Flat64) -> Flat64:
    """Weiszfeld's weights: inverse distances, the largest 1."""
    away = np.linalg.norm(points - here, axis=1)
    weights: Flat64 = np.divide(away.min(), away, out=np.ones_like(away), where=away > 0)
    return weights


def _lower(points: Rows64, there: Flat64, here: Flat64) -> float:
    """Sum of distances from `there`, less that from `here`; not blurred by points that are endlessly far away."""
    both = np.linalg.norm(points - there, axis=1) + np.linalg.norm(points - here, axis=1)
    change = (here - there) @ (2 * points - there - here).T
    return float(np.divide(change, both, out=np.zeros_like(both), where=both > 0).sum())


GEOMETRIC_MEDIAN = Rule(_geometric_median, majority)
"""The point with the smallest sum of distances to the rows, to convergence (RFA).

Guarantee: unit vectors from it to the rows add up to nothing, but for 1e-10 of their number (or, at rows themselves,
to no more than those); kappa <= 4 (1 + f / (m - 2f))^2. Where several points are optimal, in their middle.
Source: Pillutla et al. 2022, without their smoothing; steps by Vardi and Zhang 2000; kappa by Allouah et
al. 2023.
"""


def centred_clipping(radius: float, steps: int) -> Rule:
    """From the last update, `steps` times: the mean of what each row differs from it, cut to length `radius`.

    Guarantee: the update moves by at most steps * radius a round, and f rows, whatever they are, change it by at most
    2 * steps * f * radius / m, since each step moves no two starting points apart. Nothing is promised about the
    distance to the honest mean in a single round; over rounds see the source, for f <= m / 10.
    Source: Karimireddy, He and Jaggi 2021.
    """

    def apply(away: Rows64, _: int) -> Flat64:
        centre: Flat64 = np.zeros(away.shape[1])
        for _ in range(steps):
            centre = centre + shortened(away - centre, radius).mean(axis=0)
        return centre

    return Rule(apply, majority, from_last=True, votes=False)


def bounded_mean(bound: float) -> Rule:
    """The mean of the rows, those longer than `bound` cut to that length.

    Guarantee: f rows, whatever they are, change the update by at most 2 f * bound / m. It is no vote: honest rows that
    are longer are cut too, and the update can always be moved that far.
    Source: Sun et al. 2019 (norm thresholding).
    """

    def apply(rows: Rows64, _: int) -> Flat64:
        averaged: Flat64 = shortened(rows, bound).mean(axis=0)
        return averaged

    return Rule(apply, majority, votes=False)
