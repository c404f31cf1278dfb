"""Poisson sampling: each record enters a step with the same chance, independently of all others."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from common.config import finite
from common.randomness import Entropy


def poisson(count: int, rate: float, entropy: Entropy) -> NDArray[np.int64]:
    """Indices, ascending, of the records of one step; possibly none, which is a step like any other.

    count  records of the partition        rate  chance of each, in (0, 1]
    Guarantee: the chance is at most `rate` and at least rate - 2^-64; the batch is never cut to a size.
    Errors: Refusal CONFIG_INVALID for a rate outside (0, 1].
    """
    finite(rate, "sampling rate", above=0, at_most=1)
    if rate == 1:
        return np.arange(count)
    threshold = np.uint64(math.floor(rate * 2**64))  # exact: a float times a power of two
    return np.flatnonzero(entropy.words(count) < threshold)
