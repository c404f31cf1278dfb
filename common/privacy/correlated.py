"""Noise that cancels over rounds: a banded square root of the prefix sum, and the noise that it leaves in each round.

The releases x_t + y_t of a run, with C y = σ z for normal z, are one Gaussian release of C x. C is lower triangular and
Toeplitz with `band` diagonals. A site that takes part every `band` rounds at most touches columns of C that do not
overlap, so that k turns cost what k Gaussian releases cost whose sensitivity is the norm of one column.
Source: Kalinin and Lampert 2024 (banded square root factorisation).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]


@lru_cache(maxsize=64)
def coefficients(band: int) -> tuple[float, ...]:
    """c_0 … c_{band-1}, the first diagonals of the square root of the prefix-sum matrix: Taylor of (1 - x)^(-1/2)."""
    found = [1.0]
    for i in range(1, band):
        found.append(found[-1] * (2 * i - 1) / (2 * i))
    return tuple(found)


def column_norm(band: int) -> float:
    """L2 norm of a column of C, the longest one: how much one turn of norm 1 moves C x. 1 for independent noise."""
    return math.sqrt(math.fsum(c * c for c in coefficients(max(band, 1))))


def next_noise(normal: NDArray[np.float64], past: Vectors, band: int) -> tuple[NDArray[np.float64], Vectors]:
    """y_t of C y = z, and what the next round must remember: the last band - 1 of them, newest first.

    normal  z_t, float64 [d]        past  y_{t-1}, y_{t-2}, …, float64 [at most band - 1, d]
    """
    weights = np.array(coefficients(band)[1 : 1 + len(past)])
    noise: NDArray[np.float64] = normal - weights @ past if len(past) else normal.copy()
    return noise, np.concatenate([noise[np.newaxis], past])[: band - 1]


def prefix_error(rounds: int, turns: int, band: int) -> float:
    """Root mean squared error of all prefix sums of a scalar run, for noise multiplier 1 and `turns` turns a site.

    It compares factorisations: independent noise has band 1.
    """
    inverse, past = np.zeros(rounds), np.zeros((0, 1))
    for t in range(rounds):
        noise, past = next_noise(np.array([float(t == 0)]), past, band)
        inverse[t] = noise[0]
    row = np.cumsum(inverse)  # a row of A C^-1, which is Toeplitz too
    squares = np.cumsum(row**2)
    return math.sqrt(turns) * column_norm(band) * math.sqrt(float(squares.sum()) / rounds)
