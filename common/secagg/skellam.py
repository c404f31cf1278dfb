"""Skellam noise: differences of two Poisson counts, whose sums over sites are exactly Skellam again.

One table of the distribution function, as for the discrete Gaussian; floats choose only where the table ends.
Sources: Agarwal, Kairouz and Liu 2021 (what the distribution guarantees); Miller's backward recurrence for Bessel
functions, Abramowitz and Stegun 1964, section 9.12.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.secagg.discrete import Table, symmetric_table

if TYPE_CHECKING:
    from common.randomness import Entropy

SIGMA_MAX = 2.0**15  # its table has 870 000 thresholds
_TAIL = 130  # bits: mass beyond the table is below 2^-_TAIL on either side
_START = 230  # bits: the recurrence starts where the mass beyond is below 2^-_START
_FIRST = 1 << 320  # value that it starts with, so that every later one has 320 bits


def skellam(sigma: float, count: int, entropy: Entropy) -> NDArray[np.int64]:
    """`count` independent integers, each the difference of two Poisson counts of mean σ²/2.

    sigma    standard deviation, 0 < σ <= 2^15, taken as the exact binary fraction that it is
    entropy  the only source of randomness; kind "system" wherever the noise has to protect anyone
    Guarantee: total variation distance of all values together to the exact distribution <=
    `skellam_distance(sigma, count)`. Errors: Refusal CONFIG_INVALID.
    """
    return _table(_variance(sigma)).draw(count, entropy)


def skellam_distance(sigma: float, count: int) -> float:
    """Total variation distance between `count` draws and exact ones; `Table.distance` covers tails and rounding."""
    return count * _table(_variance(sigma)).distance


def half_weights(variance: Fraction) -> list[int]:
    """Integers in proportion to I_k(variance) for k = 0 … T, the chances of ±k; I is the modified Bessel function.

    Backward: I_(k-1) = I_(k+1) + (2k / variance)·I_k from I_(N+1) = 0 and any I_N. The error of each ratio
    I_k / I_(k-1) shrinks by about (I_N / I_k)², here below 2^-180 for all k <= T; floors add N·2^-320.
    """
    last, start = _reach(variance, _TAIL), _reach(variance, _START)
    above, here, weights = 0, _FIRST, []
    for k in range(start, 0, -1):
        above, here = here, above + 2 * k * here * variance.denominator // variance.numerator
        if k <= last + 1:
            weights.append(here)
    return weights[::-1]


def _reach(variance: Fraction, bits: int) -> int:
    """A T with P(X >= T) <= 2^-bits, by Chernoff: log P <= √(v² + T²) - v - T·asinh(T / v), v the variance."""
    mean = float(variance)

    def exponent(reach: int) -> float:
        ratio = reach / mean
        return reach * (ratio / (math.hypot(1.0, ratio) + 1.0) - math.asinh(ratio))

    low, high = 0, 1
    while exponent(high) > -bits * math.log(2):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if exponent(middle) <= -bits * math.log(2) else (middle, high)
    return high


def _variance(sigma: float) -> Fraction:
    if isinstance(sigma, bool) or not 0 < sigma <= SIGMA_MAX or sigma**2 == 0:
        raise Refusal(
            Code.CONFIG_INVALID, f"sigma = {sigma}", "noise is drawn for 0 < sigma <= 2^15", "Choose another scale"
        )
    return Fraction(sigma) ** 2


@lru_cache(maxsize=4)
def _table(variance: Fraction) -> Table:
    return symmetric_table(half_weights(variance))
