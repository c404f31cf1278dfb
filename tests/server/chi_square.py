"""How far lanes are from uniform."""

from __future__ import annotations

import numpy as np


def chi_square(lanes, bits: int = 24) -> float:
    """Of the upper eight bits against the uniform distribution: 255 degrees of freedom, 400 is beyond 1e-7."""
    observed = np.bincount(lanes >> (bits - 8), minlength=256)
    return float(((observed - observed.mean()) ** 2 / observed.mean()).sum())
