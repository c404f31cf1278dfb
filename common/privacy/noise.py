"""Noise from a cryptographic stream: normal for the steps of one site, discrete for sums of several."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from common.privacy.mechanism import MechanismPlan
from common.randomness import Entropy

_BLOCK = 1 << 13  # pairs at a time: what is computed on stays in the cache
_STEP = 2.0**-53


def normals(count: int, entropy: Entropy) -> NDArray[np.float64]:
    """`count` independent standard normal numbers, float64.

    Two 53-bit uniforms give two normals, none beyond 8.6 standard deviations (distance from normal 1e-17 each).
    Statistically, not bitwise, exact: sums that cross secure aggregation take discrete noise instead.
    Source: Box and Muller 1958; sine and cosine by the tangent of half the angle, one function instead of two.
    """
    out = np.empty(count + count % 2)
    pairs = out.reshape(2, -1)
    for start in range(0, pairs.shape[1], _BLOCK):
        _fill(pairs[:, start : start + _BLOCK], entropy)
    return out[:count]


def _fill(pairs: NDArray[np.float64], entropy: Entropy) -> None:
    """Normals into [2, width]."""
    width = pairs.shape[1]
    words = entropy.words(2 * width) >> np.uint64(11)
    radius = (words[:width] + np.uint64(1)) * _STEP  # of (0, 1], so never log 0
    np.log(radius, out=radius)
    np.multiply(radius, -2.0, out=radius)
    np.sqrt(radius, out=radius)
    tangent = words[width:] * (math.pi * _STEP)
    np.tan(tangent, out=tangent)  # finite: no float64 is a pole
    below = tangent * tangent + 1.0
    np.divide(radius, below, out=radius)
    np.multiply(radius, 2.0 - below, out=pairs[0])  # cos a = (1 - t^2) / (1 + t^2)
    np.multiply(radius, tangent, out=pairs[1])  # sin a = 2 t / (1 + t^2)
    pairs[1] *= 2.0


def integer_noise(plan: MechanismPlan, entropy: Entropy) -> NDArray[np.int64]:
    """This site's share of the noise that `plan` accounts for, int64 [plan.lanes]: discrete Gaussian, or Skellam."""
    from common.secagg.discrete import discrete_gaussian
    from common.secagg.skellam import skellam

    draw = skellam if plan.mechanism == "skellam" else discrete_gaussian
    return draw(plan.sigma, plan.lanes, entropy)
