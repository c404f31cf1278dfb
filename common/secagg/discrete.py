"""Discrete Gaussian noise: integers k with weight exp(-k² / 2σ²), from entropy words, any σ up to 2^30.

Small σ: one table of the distribution function in 128-bit integers. Large σ: two such draws, x = a + k·b.
Both differ from the exact distribution by no more than `sampler_distance` says; floats take no part in a draw.

Sources: Peikert 2010, theorem 3.1 (convolution of discrete Gaussians); Canonne, Kamath, Steinke 2020 (what the
distribution guarantees).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal

if TYPE_CHECKING:
    from common.randomness import Entropy

SIGMA_MAX = 2.0**30
_ONE_TABLE = 2048  # largest σ that a single table serves: its 54 000 thresholds stay in the second-level cache
_RATIO = 3  # σ_a / k: each class mod k is met evenly up to 2·exp(-2π²·_RATIO²·0.99) < 2^-250
_PRECISION = 256  # bits of weights
_TAIL = 128  # bits: mass beyond the table is below 2^-_TAIL
_GUIDE = 18  # leading bits of a draw that say where in the table to look
_BLOCK = 1 << 15  # values at a time, so that a block stays in the cache


@dataclass(frozen=True)
class Table:
    """A distribution over the integers `least`, `least` + 1, … by its distribution function.

    high, low  floor(2^128 · CDF) in two 64-bit halves, one a value; the last, all ones, is never reached
    guide      for each value of the leading bits of a draw, the first threshold that is not below it
    """

    least: int
    high: NDArray[np.uint64] = field(repr=False)
    low: NDArray[np.uint64] = field(repr=False)
    guide: NDArray[np.int32] = field(repr=False)

    @property
    def distance(self) -> float:
        """Most by which one draw differs from the distribution it stands for, in total variation.

        2^-128 for each floored threshold; as much for the tail, and more than enough for the weights' rounding.
        """
        return (self.high.size + 3) * 2.0**-128

    def draw(self, count: int, entropy: Entropy) -> NDArray[np.int64]:
        """`count` independent values: the number of thresholds that a uniform 128-bit integer reaches.

        Its lower 64 bits are drawn only where the upper ones do not decide.
        """
        values = np.empty(count, np.int64)
        for first in range(0, count, _BLOCK):
            block = values[first : first + _BLOCK]
            block[:] = self.reached(entropy.words(block.size), entropy)
        values += self.least
        return values

    def reached(self, upper: NDArray[np.uint64], entropy: Entropy) -> NDArray[np.int64]:
        """Thresholds that draws with these upper halves reach."""
        lead = (upper >> np.uint64(64 - _GUIDE)).astype(np.int64)
        found = self.guide[lead].astype(np.int64)
        undecided = np.flatnonzero(self.guide[lead + 1] != found)
        found[undecided] = np.searchsorted(self.high, upper[undecided], side="left")
        for place in undecided[self.high[found[undecided]] == upper[undecided]]:
            found[place] += self._reached_below(int(found[place]), int(entropy.words(1)[0]))
        return found

    def _reached_below(self, first: int, lower: int) -> int:
        """Of the thresholds that share their upper half with number `first`, how many lower halves are reached."""
        last = min(int(np.searchsorted(self.high, self.high[first], side="right")), self.high.size - 1)
        return sum(int(each) <= lower for each in self.low[first:last])


@dataclass(frozen=True)
class Plan:
    """How one σ is drawn: `fine` alone, or fine + step · coarse.

    distance  most by which one draw differs from the exact distribution, in total variation
    """

    fine: Table
    coarse: Table | None
    step: int
    distance: float


def discrete_gaussian(sigma: float, count: int, entropy: Entropy) -> NDArray[np.int64]:
    """`count` independent integers, each k with probability proportional to exp(-k² / 2σ²).

    sigma    0 < σ <= 2^30, taken as the exact binary fraction that it is
    entropy  the only source of randomness; kind "system" wherever the noise has to protect anyone
    Guarantee: total variation distance of all values together to the exact distribution <=
    `sampler_distance(sigma, count)`. Errors: Refusal CONFIG_INVALID.
    """
    chosen = plan(sigma)
    values = chosen.fine.draw(count, entropy)
    if chosen.coarse is not None:
        values += chosen.step * chosen.coarse.draw(count, entropy)
    return values


def sampler_distance(sigma: float, count: int) -> float:
    """Total variation distance η between `count` draws and exact ones.

    A mechanism that is (ε, δ)-private with exact noise is (ε, δ + (1 + e^ε)·η)-private with these draws.
    """
    return count * plan(sigma).distance


def plan(sigma: float) -> Plan:
    """The tables for one σ; made once, then remembered. Errors: Refusal CONFIG_INVALID."""
    if isinstance(sigma, bool) or not 0 < sigma <= SIGMA_MAX:
        raise Refusal(
            Code.CONFIG_INVALID, f"sigma = {sigma}", "noise is drawn for 0 < sigma <= 2^30", "Choose another scale"
        )
    return _plan(Fraction(sigma) ** 2)


@lru_cache(maxsize=8)
def _plan(variance: Fraction) -> Plan:
    """One table, or the split σ² = a² + k²·b² with a = 3k and k ≈ √(σ/3), which makes both tables equally wide.

    For a draw x = α + k·β the weight of x is ρ_σ(x) · Σ_y ρ_τ(y - u) for some u, with τ = a·b/σ. By Poisson
    summation that sum over all integers y lies within a factor 1 ± ε of a constant, ε <= 2.1·exp(-2π²τ²): the
    result is the discrete Gaussian of σ up to that factor, pointwise. Here τ² >= 9·(1 - 3/σ), so ε < 2^-253.
    """
    if variance <= _ONE_TABLE**2:
        table = _table(variance)
        return Plan(table, None, 1, table.distance)
    step = math.isqrt(math.isqrt(math.floor(variance)) // _RATIO)
    fine_variance = Fraction((_RATIO * step) ** 2)
    fine, coarse = _table(fine_variance), _table((variance - fine_variance) / step**2)
    return Plan(fine, coarse, step, fine.distance + coarse.distance + 2.0**-250)


def _table(variance: Fraction) -> Table:
    """The table of one variance. Tail: P(|X| > T) <= 2·exp(-T² / 2σ²)."""
    return symmetric_table(_half_weights(variance))


def symmetric_table(half: list[int], width: int = 64) -> Table:
    """The table of a distribution with these weights of 0, ±1, ±2 and so on.

    half   at least 256 bits each near 0, all but 2^-128 of the whole distribution
    width  as for `table_of`
    Thresholds are floors below 2^128, each 2^-128 off at most.
    """
    weights = half[:0:-1] + half
    total, top = sum(weights), (1 << 128) - 1
    thresholds = [(reached << 128) // total for reached in accumulate(weights[:-1])]
    for place in range(len(thresholds) - 1, -1, -1):
        if thresholds[place] <= top:
            break
        thresholds[place] = top  # where the last weights are zero
    return table_of(1 - len(half), thresholds, width)


def table_of(least: int, thresholds: list[int], width: int) -> Table:
    """A table from floor(2^128 · CDF) of all values but the last.

    width  leading bits in `high`, at most 64; the next 64 are in `low`. Fewer than 64 only make ties frequent, so
           that a test meets them
    """
    whole = b"".join(each.to_bytes(16, "little") for each in thresholds) + bytes(16 * [0xFF])
    low, high = np.frombuffer(whole, "<u8").reshape(-1, 2).T.astype(np.uint64, order="C")
    if width < 64:
        kept, left = np.uint64(width), np.uint64(64 - width)
        low, high = high << kept | low >> left, high >> left << left
    edges = np.arange(1 << _GUIDE, dtype=np.uint64) << np.uint64(64 - _GUIDE)
    guide = np.append(np.searchsorted(high, edges, side="left"), high.size).astype(np.int32)
    return Table(least, high, low, guide)


def _half_weights(variance: Fraction) -> list[int]:
    """floor-like 2^256 · exp(-k² / 2σ²) for k = 0 … T, by w_(k+1) = w_k·r_k, r_(k+1) = r_k·exp(-1/σ²)."""
    root = _exp_minus(1 / (2 * variance))
    square = root * root >> _PRECISION
    weights, ratio = [1 << _PRECISION], root
    # T² > 2σ²·ln2·(_TAIL + 1); 0.6932 > ln2
    for _ in range(math.isqrt(math.ceil(2 * variance * (_TAIL + 1) * Fraction(6932, 10000))) + 1):
        weights.append(weights[-1] * ratio >> _PRECISION)
        ratio = ratio * square >> _PRECISION
    return weights


def _exp_minus(x: Fraction) -> int:
    """2^256 · exp(-x) for x > 0, to a few units: Taylor series after halving x, then squaring."""
    halvings = max(0, math.ceil(x).bit_length() + 2)
    point = (x.numerator << _PRECISION) // (x.denominator << halvings)
    term, total, order = 1 << _PRECISION, 1 << _PRECISION, 1
    while term:
        term = (term * point >> _PRECISION) // order
        total += -term if order % 2 else term
        order += 1
    for _ in range(halvings):
        total = total * total >> _PRECISION
    return total
