"""A rule that weighs rows down along the direction in which they differ most (covariance-bound agnostic filter)."""

from __future__ import annotations

import numpy as np

from server.strategies.geometry import coordinates, weighted
from server.strategies.strategy import Flat64, Rows64
from server.strategies.voting import Rule


def _filtered(rows: Rows64, liars: int) -> Flat64:
    """Algorithm: weights c start at 1. While they add up to more than m - 2f, find the direction in which the weighted
    rows vary most, and lower each weight by its share of the largest square along it. The mean with the smallest such
    variance on the way is the update.
    """
    points, weights = coordinates(rows), np.ones(len(rows))
    best, least = weights, np.inf
    while weights.sum() > len(rows) - 2 * liars:
        variance, squares = _widest(points, weights)
        if variance < least:
            best, least = weights, variance
        if (largest := squares[weights > 0].max()) == 0:
            break
        weights = weights * (1 - np.minimum(squares / largest, 1))
    return weighted(rows, best)


def _widest(points: Rows64, weights: Flat64) -> tuple[float, Flat64]:
    """The largest variance of the weighted points in any direction, and each point's square along that direction."""
    away = points - weighted(points, weights)
    _, sizes, directions = np.linalg.svd(np.sqrt(weights)[:, None] * away, full_matrices=False)
    return float(sizes[0] ** 2 / weights.sum()), (away @ directions[0]) ** 2


FILTERED = Rule(_filtered, lambda liars: max(1, 5 * liars))
"""The mean of the rows with the weights under which their largest variance in any direction is the smallest (CAF).

Guarantee, for 5f <= m: |update - honest mean|^2 <= 2 f / (m - 3f) (1 + u)^2 L, where L is the largest variance of the
honest rows in any direction (at most V, and far less in many dimensions), r = f / (m - 2f), a = 2 (m - f) / (m - 2f),
u = (a r + sqrt(a^2 r^2 + (1 - a r) a (1 + r))) / (1 - a r). For as long as lies make up more than half of the variance
they lose more weight than honest rows; when they first do not, the variance is at most u^2 L.
Source: Allouah et al. 2025 (CafCor); these constants are worked out in deploy/docs/robustness.md.
"""
