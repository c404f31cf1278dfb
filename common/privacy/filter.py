"""Epsilon of releases whose parameters may have been chosen after looking at earlier ones: a Rényi filter.

Composition of privacy loss distributions holds for mechanisms that are fixed in advance, as those of one job are. Who
plans a second job has seen the model of the first. A Rényi filter allows that: at one order that was fixed before the
first release, divergences add up, whatever each of them was chosen by.
Source: Feldman and Zrnic 2021 (theorem 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from common.privacy.charges import Charge, total_distance
from common.privacy.renyi import ORDERS, divergence, epsilon_of

LARGEST = 256  # orders above it are best for an epsilon far below 0.1


@lru_cache(maxsize=256)
def best_order(charge: Charge, delta: float) -> int:
    """The order at which `charge` alone costs least: it depends on nothing that is released later."""
    known = [order for order in ORDERS if order <= LARGEST]
    return min(known, key=lambda order: filtered_epsilon([charge], order, delta))


def filtered_epsilon(charges: Iterable[Charge], order: int, delta: float) -> float:
    """Epsilon at `delta` of all charges together, each of which may have been chosen after seeing those before it.

    order  fixed in advance, one of `ORDERS`
    Errors: Refusal CONFIG_INVALID for a delta outside (0, 1).
    """
    listed = list(charges)
    if not listed:
        return 0.0
    curve = np.full(len(ORDERS), math.inf)
    curve[ORDERS.index(order)] = math.fsum(one.steps * divergence(one, order) for one in listed)
    return epsilon_of(curve, delta, total_distance(listed))
