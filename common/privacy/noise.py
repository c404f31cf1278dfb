"""Noise from a cryptographic stream: normal for the steps of one site, discrete for sums of several."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from common.privacy.mechanism import MechanismPlan
from common.randomness import Entropy

_BLOCK = 1 << 16  # pairs at a time: what is computed on stays in the cache
_STEP = 2.0**-53


def normals(count: int, entropy: Entropy) -> NDArray[np.float64]:
    """`count` independent standard normal numbers, float64.

    Two 53-bit uniforms give two normals, none beyond 8.6 standard deviations (distance from normal 1e-17 each).
    Statistically, not bitwise, exact: sums that cross secure aggregation take discrete noise instead.
    Source: Box and Muller 1958.
    """
    out = np.empty(count + count % 2)
    pairs = out.reshape(2, -1)
    for start in range(0, pairs.shape[1], _BLOCK):
        block = pairs[:, start : start + _BLOCK]
        width = block.shape[1]
        words = entropy.words(2 * width) >> np.uint64(11)
        radius = np.sqrt(-2.0 * np.log((words[:width] + np.uint64(1)) * _STEP))  # of (0, 1], so never log 0
        angle = words[width:] * (2.0 * math.pi * _STEP)
        np.multiply(radius, np.cos(angle), out=block[0])
        np.multiply(radius, np.sin(angle), out=block[1])
    return out[:count]


def integer_noise(plan: MechanismPlan, entropy: Entropy) -> NDArray[np.int64]:
    """This site's share of the noise that `plan` accounts for: discrete Gaussian, int64 [plan.dimension]."""
    from common.secagg.discrete import discrete_gaussian

    return discrete_gaussian(plan.sigma, plan.dimension, entropy)
