"""Exact samplers over fair coins and whole numbers alone: slow, independent of the tables, for comparison."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
from scipy import stats


class Exact:
    """Draws without any approximation, from a seeded stream of whole numbers.

    Sources: Canonne, Kamath and Steinke 2020, algorithms 1 to 3 (discrete Gaussian); Duchon and Duvignau 2016
    (Poisson of mean 1).
    """

    def __init__(self, seed: int):
        self._below = random.Random(seed).randrange

    def discrete_gaussian(self, sigma: int) -> int:
        """An integer k with weight exp(-k² / 2σ²): discrete Laplace of scale t, accepted by a coin."""
        variance, t = sigma**2, sigma + 1
        while True:
            draw = self._laplace(t)
            if self._coin_exp(Fraction((abs(draw) * t - variance) ** 2, 2 * variance * t**2)):
                return draw

    def skellam(self, variance: int) -> int:
        """The difference of two Poisson counts of mean variance / 2."""
        return self.poisson(variance) - self.poisson(variance)

    def poisson(self, halves: int) -> int:
        """A Poisson count of mean halves / 2: counts of mean 1, and one of them thinned by fair coins."""
        total = sum(self._poisson_of_one() for _ in range(halves // 2))
        return total + sum(self._below(2) for _ in range(self._poisson_of_one())) if halves % 2 else total

    def _poisson_of_one(self) -> int:
        n, g, k = 1, 0, 1
        while True:
            i = self._below(n + 1) + 1
            if i == n + 1:
                k += 1
            elif i > g:
                k, g = k - 1, n + 1
            else:
                return k
            n += 1

    def _laplace(self, t: int) -> int:
        """Weight exp(-|k| / t)."""
        while True:
            u = self._below(t)
            if not self._coin_exp(Fraction(u, t)):
                continue
            v = 0
            while self._coin_exp(Fraction(1)):
                v += 1
            size, negative = u + t * v, self._below(2)
            if size or not negative:
                return -size if negative else size

    def _coin_exp(self, x: Fraction) -> bool:
        """True with probability exp(-x), x >= 0."""
        while x > 1:
            if not self._coin_exp(Fraction(1)):
                return False
            x -= 1
        k = 1
        while self._below(x.denominator * k) < x.numerator:
            k += 1
        return k % 2 == 1


def same_distribution(first: np.ndarray, second: np.ndarray) -> float:
    """p-value of the chi-square test that two sets of integers come from one distribution; rare ones share a class."""
    edge = min(int(np.quantile(np.abs(first), 0.999)), int(np.quantile(np.abs(second), 0.999)))
    counts = [np.bincount(np.clip(each, -edge, edge) + edge, minlength=2 * edge + 1) for each in (first, second)]
    table = np.array(counts)
    return float(stats.chi2_contingency(table[:, table.min(axis=0) >= 5]).pvalue)


def fits(values: np.ndarray, chances: dict[int, float]) -> float:
    """p-value of the chi-square test of integers against exact chances; those below 20 expected share a class."""
    likely = [k for k, chance in chances.items() if chance * values.size >= 20]
    counts = np.array([int((values == k).sum()) for k in likely])
    expected = np.array([chances[k] * values.size for k in likely])
    rest = values.size - expected.sum()
    if rest >= 5:
        counts, expected = np.append(counts, values.size - counts.sum()), np.append(expected, rest)
    return float(stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue)


def poisson_chances(mean: float, most: int) -> dict[int, float]:
    """Of 0 to `most`."""
    return {k: math.exp(-mean) * mean**k / math.factorial(k) for k in range(most + 1)}
