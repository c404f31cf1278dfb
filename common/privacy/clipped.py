"""Sums whose bound for one record is known: what a guard accepts, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, repr=False, eq=False)
class Clipped:
    """A sum over records of which each adds a vector of L2 norm at most `record_bound`. Not private: never sent.

    total  float64 [lanes], summed in float64: float32 sums of many records could break the bound
    Only code that has just clipped every record makes one.
    """

    total: NDArray[np.float64]
    record_bound: float


@dataclass(frozen=True, repr=False, eq=False)
class Counted:
    """Counts of records, each in exactly one cell. Not private: never sent.

    total  int64 [cells], none negative
    """

    total: NDArray[np.int64]


@dataclass(frozen=True, repr=False, eq=False)
class PrivateUpdate:
    """A change of parameters whose every step was clipped and noised. Only the private optimizer makes one.

    value  float64 [d], model units      plan_id, steps  the mechanism it came from, and its steps
    """

    value: NDArray[np.float64]
    plan_id: str
    steps: int
