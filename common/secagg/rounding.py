"""Reals to integers at random, so that expectations are exact; and under a norm that is never exceeded."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.secagg.lanes import unusable

if TYPE_CHECKING:
    from common.randomness import Entropy  # it imports torch, which a process that only reads messages has no use for

_BLOCK = 1 << 16  # values at a time, so that every pass stays in the cache; a multiple of 4
TRIES = 100  # of rounding within a norm; each succeeds with a chance of 0.39 at least
_HALF_STEP = 2.0**-17


def stochastic_round(values: NDArray[np.float64], entropy: Entropy) -> NDArray[np.int64]:
    """Each value to one of its two neighbouring integers, nearer ones more often: |bias| <= 2^-17.

    values  |value| < 2^36
    Value j takes the j-th 16-bit part r_j of the stream: floor(value + (r_j + 1/2) / 2^16). Integers stay.
    """
    integers = np.empty(values.size, np.int64)
    for first in range(0, values.size, _BLOCK):
        block = values[first : first + _BLOCK]
        shifts = sixteenths(block.size, entropy)
        shifts += block
        integers[first : first + _BLOCK] = np.floor(shifts, out=shifts)
    return integers


def sixteenths(count: int, entropy: Entropy) -> NDArray[np.float64]:
    """`count` independent values (r + 1/2) / 2^16 with uniform 0 <= r < 2^16, float64.

    Streams are read in whole words, four values to a word.
    """
    parts = entropy.words(-(-count // 4)).view(np.uint16)[:count]
    shifts = parts.astype(np.float64)
    shifts *= 2.0**-16
    shifts += _HALF_STEP
    return shifts


def clipped(vector: NDArray[np.floating], bound: float) -> NDArray[np.float64]:
    """A copy in float64, scaled down to L2 norm `bound` if it is longer, up to float rounding.

    vector  finite; its norm may be larger than any float. A shorter one passes unchanged
    """
    copy = vector.astype(np.float64)
    peak = float(np.abs(copy).max(initial=0.0))
    if peak == 0.0:
        return copy
    unit = copy / peak
    length = math.sqrt(float(np.dot(unit, unit)))
    if peak * length <= bound:
        return copy
    unit *= bound / length
    return unit


def rounded_norm(norm: float, lanes: int) -> float:
    """K: the L2 norm that a vector of L2 norm `norm` keeps after rounding, with a chance of at least 1 - e^(-1/2).

    Source: Kairouz, Liu and Steinke 2021, theorem 1 with β = e^(-1/2), so that √(2 ln 1/β) = 1.
    """
    root = math.sqrt(lanes)
    return min(norm + root, math.sqrt(norm**2 + lanes / 4 + norm + root / 2))


def round_within(values: NDArray[np.float64], norm: float, entropy: Entropy) -> NDArray[np.int64]:
    """`values`, rounded at random under the condition that their L2 norm is at most `norm`, in exact integers.

    Rounding is repeated until the condition holds, `TRIES` times at most, then done towards zero: that makes no
    vector longer. Given the condition, expectations are no longer exact; the difference vanishes with the chance of
    a repetition. How often rounding was repeated shows in the time it takes, to nobody but this site.
    norm    at most 2^31        values  of L2 norm at most `norm`
    Errors: Refusal UPDATE_INVALID if `values` are longer.
    """
    if not 0 <= norm <= 2**31 or not math.sqrt(float(np.dot(values, values))) <= norm:
        raise unusable("it is longer than what its noise covers", "Report this: it was not clipped")
    most = math.floor(Fraction(norm) ** 2)
    for _ in range(TRIES):
        integers = stochastic_round(values, entropy)
        if int(np.dot(integers, integers)) <= most:
            return integers
    return np.trunc(values).astype(np.int64)
