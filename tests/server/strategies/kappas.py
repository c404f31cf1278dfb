"""The bounds that the rules promise, and how far inputs drive them: |F - mean of S|^2 <= kappa * spread of S."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Apply = Callable[[Rows], Rows]


def median(m: int, f: int) -> float:
    return 4 * (1 + f / (m - 2 * f)) ** 2


def trimmed_mean(m: int, f: int) -> float:
    return 6 * f / (m - 2 * f) * (1 + f / (m - 2 * f))


def meamed(m: int, f: int) -> float:
    return 4 * f / (m - f) * (1 + median(m, f))


def krum(m: int, f: int) -> float:
    """Ours, which is below 6 (1 + f / (m - 2f)) of Allouah et al. 2023 for the sizes that are tested."""
    a = 2 * (m - f) * (m - f - 2) / ((m - f - 1) * (m - 2 * f - 1))
    return (sqrt(a) + sqrt((f + 1) / (m - 2 * f - 1))) ** 2


def mda(m: int, f: int) -> float:
    return 8 * f * f / (m - f)


def caf(m: int, f: int) -> float:
    r, a = f / (m - 2 * f), 2 * (m - f) / (m - 2 * f)
    u = (a * r + sqrt(a * a * r * r + (1 - a * r) * a * (1 + r))) / (1 - a * r)
    return 2 * f / (m - 3 * f) * (1 + u) ** 2


def nearest_mixed(kappa: float, m: int, f: int) -> float:
    return 8 * f / (m - f) * (kappa + 1)


def adaptively_cut(kappa: float, m: int, f: int) -> float:
    return (sqrt(kappa) + sqrt(2 * f / (m - 2 * f))) ** 2


KAPPA: dict[str, Callable[[int, int], float]] = {
    "median": median,
    "trimmed-mean": trimmed_mean,
    "meamed": meamed,
    "krum": krum,
    "multi-krum": krum,
    "geometric-median": median,
    "mda": mda,
    "caf": caf,
}


def inputs(m: int, f: int, count: int, seed: int = 1) -> Iterator[Rows]:
    """Honest rows and lies of many kinds: far, mirrored, within the spread, all alike, in one coordinate, clustered."""
    stream = np.random.default_rng(seed)
    for turn in range(count):
        honest = stream.normal(size=(m - f, 1 + turn % 4)) * stream.choice([1.0, 1.0, 10.0], size=(m - f, 1))
        mean, spread = honest.mean(axis=0), honest.std(axis=0)
        lies = [
            np.tile(mean + 1e3 * stream.normal(size=mean.shape), (f, 1)),
            np.tile(-3 * mean, (f, 1)),
            np.tile(mean - stream.uniform(0.2, 2.5) * spread, (f, 1)),
            np.tile(honest[turn % len(honest)], (f, 1)),
            mean + np.eye(len(mean))[turn % len(mean)] * 1e2 * stream.normal(size=(f, 1)),
            mean + 0.1 * stream.normal(size=(f, len(mean))) + 2 * spread,
            stream.normal(size=(f, len(mean))) * 1e30,
        ][turn % 7]
        yield stream.permutation(np.vstack([honest, lies]))


def worst_kappa(apply: Apply, rows: Rows, f: int) -> float:
    """The largest |F - mean of S|^2 over the spread of S, for every S that could be the honest rows."""
    update, worst = apply(rows), 0.0
    for some in combinations(range(len(rows)), len(rows) - f):
        honest = rows[list(some)]
        mean = honest.mean(axis=0)
        spread = float(((honest - mean) ** 2).sum(axis=1).mean())
        gap = float(((update - mean) ** 2).sum())
        if gap > 1e-18 * float((honest**2).sum()):  # otherwise it is the mean but for rounding
            worst = max(worst, gap / spread if spread else np.inf)
    return worst
