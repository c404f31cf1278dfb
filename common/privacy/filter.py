"""Epsilon of releases whose parameters may have been chosen after looking at earlier ones: a Rényi filter.

Composition of privacy loss distributions holds for mechanisms that are fixed in advance, as those of one job are. Who
plans a second job has seen the model of the first. A Rényi filter allows that: at one order that was fixed before the
first release, divergences add up, whatever each of them was chosen by.
Source: Feldman and Zrnic 2021 (theorem 4.3); Mironov, Talwar and Zhang 2019, section 3.3 (Poisson-sampled Gaussian).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from scipy.special import gammaln, logsumexp

from common.privacy.accounting import Charge, total_distance
from common.privacy.renyi import ORDERS, Shift, discrete_gaussian_curve, epsilon_of

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


def divergence(charge: Charge, order: int) -> float:
    """Rényi divergence of a whole order of one step of `charge`, in nats; `math.inf` without noise."""
    if charge.mechanism == "none":
        return math.inf
    if charge.mechanism == "discrete-gaussian":
        each = charge.sigma / math.sqrt(charge.terms)
        shift = Shift(norm=1.0, lanes=1, sigma=each, terms=charge.terms)
        return float(discrete_gaussian_curve(shift)[ORDERS.index(order)])
    return _sampled_gaussian(charge.q, charge.sigma, order)


@lru_cache(maxsize=4096)
def _sampled_gaussian(q: float, sigma: float, order: int) -> float:
    if q == 1:
        return order / (2 * sigma**2)
    taken = np.arange(order + 1)
    chosen = gammaln(order + 1) - gammaln(taken + 1) - gammaln(order - taken + 1)
    terms = chosen + taken * math.log(q) + (order - taken) * math.log1p(-q) + taken * (taken - 1) / (2 * sigma**2)
    return max(0.0, float(logsumexp(terms))) / (order - 1)
