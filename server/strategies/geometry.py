"""Lengths, distances and coordinates of a few long rows, in float64 and without cancellation."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist, squareform

from server.strategies.strategy import Flat64, Rows64


def distances(rows: Rows64) -> Rows64:
    """Squared distances [m, m] of rows [m, d], each from differences: |a|^2 + |b|^2 - 2ab would lose all digits
    where updates are near to each other and far from zero.
    """
    square: Rows64 = squareform(pdist(rows, "sqeuclidean"))
    return square


def shortened(rows: Rows64, bound: float) -> Rows64:
    """The rows, those longer than `bound` scaled to that length: projected into the ball."""
    lengths = np.linalg.norm(rows, axis=1)
    factors, beyond = np.ones(len(rows)), lengths > bound
    factors[beyond] = bound / lengths[beyond]
    short: Rows64 = rows * factors[:, None]
    return short


def coordinates(rows: Rows64) -> Rows64:
    """Rows [m, d] as points [m, min(m, d)] with the same distances from each other, around their median.

    Rules that only mix rows can then search among m numbers instead of d. A QR decomposition errs in each row by its
    own length only, so an endless row does not blur the others.
    """
    centred: Rows64 = rows - np.median(rows, axis=0)
    if rows.shape[1] <= len(rows):
        return centred
    return np.asarray(np.linalg.qr(centred.T, mode="r"), np.float64).T


def weighted(rows: Rows64, weights: Flat64) -> Flat64:
    """Their mean with these weights, which need not sum to 1."""
    return np.asarray(weights / weights.sum() @ rows, np.float64)
