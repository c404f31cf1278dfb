"""The rules once more, slowly and from their papers, to hold the fast ones against: loops, lists, no shared code."""

from __future__ import annotations

from itertools import combinations
from math import dist, floor
from typing import Any

import numpy as np

Row = list[float]


def by_coordinate(rule: Any) -> Any:
    """A rule on numbers as one on rows."""
    return lambda rows, liars: [rule(sorted(column), liars) for column in zip(*rows, strict=True)]


def middle(values: Row, liars: int = 0) -> float:
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def trimmed(values: Row, liars: int) -> float:
    return sum(values[liars : len(values) - liars]) / (len(values) - 2 * liars)


def around_median(values: Row, liars: int) -> float:
    nearest = sorted(values, key=lambda value: (abs(value - middle(values)), value))[: len(values) - liars]
    return sum(nearest) / len(nearest)


def mean_of(rows: list[Row]) -> Row:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def krum_scores(rows: list[Row], liars: int) -> list[tuple[float, float]]:
    """Near ones, then all: for two that are each other's nearest."""
    scores = []
    for place, row in enumerate(rows):
        others = sorted(dist(row, other) ** 2 for at, other in enumerate(rows) if at != place)
        scores.append((sum(others[: max(1, len(rows) - liars - 2)]), sum(others)))
    return scores


def krum(rows: list[Row], liars: int) -> Row:
    scores = krum_scores(rows, liars)
    return rows[scores.index(min(scores))]


def multi_krum(rows: list[Row], liars: int) -> Row:
    ranked = sorted(zip(krum_scores(rows, liars), range(len(rows)), strict=True))
    return mean_of([rows[place] for _, place in ranked[: len(rows) - liars]])


def bulyan(rows: list[Row], liars: int) -> Row:
    left, chosen = list(rows), []
    while len(chosen) < len(rows) - 2 * liars:
        chosen.append(krum(left, liars))
        left.remove(chosen[-1])
    return by_coordinate(lambda values, _: around_median(values, 2 * liars))(chosen, liars)


def least_diameter(rows: list[Row], liars: int) -> Row:
    def size(some: Any) -> tuple[float, float]:
        apart = [dist(a, b) for a in some for b in some]
        return max(apart), sum(gap**2 for gap in apart)

    return mean_of(list(min(combinations(rows, len(rows) - liars), key=size)))


def geometric_median(rows: list[Row], liars: int) -> Row:
    """Weiszfeld's steps from beside the mean, very many of them."""
    here = [value + 1e-3 for value in mean_of(rows)]
    for _ in range(20_000):
        weights = [1 / max(dist(row, here), 1e-12) for row in rows]
        here = [
            sum(w * row[i] for w, row in zip(weights, rows, strict=True)) / sum(weights) for i in range(len(rows[0]))
        ]
    return here


def filtered(rows: list[Row], liars: int) -> Row:
    """The covariance itself, d by d, and its largest eigenvalue."""
    x, c, found = np.array(rows), [1.0] * len(rows), []
    while sum(c) > len(rows) - 2 * liars:
        mu = sum(w * row for w, row in zip(c, x, strict=True)) / sum(c)
        cov = sum(w * np.outer(row - mu, row - mu) for w, row in zip(c, x, strict=True)) / sum(c)
        values, vectors = np.linalg.eigh(cov)
        found.append((values[-1], list(mu)))
        tau = [float((row - mu) @ vectors[:, -1]) ** 2 for row in x]
        most = max(t for t, w in zip(tau, c, strict=True) if w > 0)
        c = [w * max(0.0, 1 - t / most) if most else 0.0 for w, t in zip(c, tau, strict=True)]
    return min(found)[1] if found else mean_of(rows)


def cut(row: Row, bound: float) -> Row:
    length = dist(row, [0.0] * len(row))
    return [value * min(1.0, bound / length) if length else value for value in row]


def bounded_mean(bound: float) -> Any:
    return lambda rows, liars: mean_of([cut(row, bound) for row in rows])


def centred(radius: float, steps: int, last: Row) -> Any:
    def rule(rows: list[Row], liars: int) -> Row:
        here = list(last)
        for _ in range(steps):
            pulls = [cut([a - b for a, b in zip(row, here, strict=True)], radius) for row in rows]
            here = [a + b for a, b in zip(here, mean_of(pulls), strict=True)]
        return here

    return rule


def nearest_mixed(rows: list[Row], liars: int) -> list[Row]:
    return [mean_of(sorted(rows, key=lambda other: dist(row, other))[: len(rows) - liars]) for row in rows]


def adaptively_cut(rows: list[Row], liars: int) -> list[Row]:
    lengths = sorted((dist(row, [0.0] * len(row)) for row in rows), reverse=True)
    count = floor(2 * liars / len(rows) * (len(rows) - liars) + 1e-12)
    return [cut(row, lengths[count]) for row in rows]


def in_buckets(size: int) -> Any:
    return lambda rows, liars: [mean_of(rows[at : at + size]) for at in range(0, len(rows), size)]


SLOW = {
    "median": by_coordinate(middle),
    "trimmed-mean": by_coordinate(trimmed),
    "meamed": by_coordinate(around_median),
    "krum": krum,
    "multi-krum": multi_krum,
    "bulyan": bulyan,
    "geometric-median": geometric_median,
    "mda": least_diameter,
    "caf": filtered,
}
