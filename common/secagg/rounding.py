"""Reals to integers at random, so that expectations are exact; and under a norm that is never exceeded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from common.randomness import Entropy  # it imports torch, which a process that only reads messages has no use for

_BLOCK = 1 << 16  # values at a time, so that every pass stays in the cache; a multiple of 4
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
