"""Rényi divergences: of integer noise that several sites add up, of counts, of sampled Gaussians.

Source: for the Poisson-sampled Gaussian Mironov, Talwar and Zhang 2019, section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from common.config import finite
from common.privacy.charges import Charge, beyond_distance
from common.privacy.integers import log_ratio

# Whole numbers: only for them the curve of Skellam noise is proved.
ORDERS: tuple[int, ...] = (*range(2, 257), *(round(256 * 2 ** (step / 8)) for step in range(1, 49)))


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A sum of integer vectors in which one vector is there or replaced by zero, and the noise that covers it.

    norm   largest L2 norm of the vector, in integers      lanes  of it
    sigma  standard deviation of the noise of one term     terms  independent terms whose noise counts
    """

    norm: float
    lanes: int
    sigma: float
    terms: int

    @property
    def length(self) -> float:
        """Largest L1 norm: integers are at most their squares."""
        return self.norm * min(math.sqrt(self.lanes), self.norm)

    @property
    def variance(self) -> float:
        """Of all noise that counts, in one lane."""
        return self.terms * self.sigma**2


def discrete_gaussian_curve(shift: Shift) -> NDArray[np.float64]:
    """Rényi divergences at `ORDERS` of a sum of discrete Gaussians. Source: Kairouz, Liu and Steinke 2021, theorem 1.

    With one term, or with noise so wide that `log_ratio` is zero, it is α·norm² / 2σ² exactly: that of a Gaussian.
    """
    order = np.array(ORDERS, np.float64)
    square, apart = shift.norm**2 / shift.variance, log_ratio(shift.sigma, shift.terms)
    length = shift.length / math.sqrt(shift.variance)
    first = order / 2 * square + apart * shift.lanes
    second = order / 2 * (square + 2 * length * apart + apart**2 * shift.lanes)
    third = order / 2 * (math.sqrt(square) + math.sqrt(shift.lanes) * apart) ** 2
    least: NDArray[np.float64] = np.minimum(np.minimum(first, second), third)
    return least


def skellam_curve(shift: Shift) -> NDArray[np.float64]:
    """Rényi divergences at `ORDERS` of Skellam noise. Source: Agarwal, Kairouz and Liu 2021."""
    order = np.array(ORDERS, np.float64)
    variance, square = shift.variance, shift.norm**2
    fine = ((2 * order - 1) * square + 6 * shift.length) / (4 * variance**2)
    return order * square / (2 * variance) + np.minimum(fine, 3 * shift.length / (2 * variance))


def epsilon_of(curve: NDArray[np.float64], delta: float, distance: float) -> float:
    """Epsilon at `delta` of mechanisms whose curves add up to `curve`, drawn within `distance` of their ideals.

    distance  in total variation, all of them together; it is paid from delta, see `beyond_distance`
    Errors: Refusal CONFIG_INVALID for a delta outside (0, 1).
    Source: Canonne, Kamath and Steinke 2020, by dp-accounting.
    """
    from dp_accounting.rdp import rdp_privacy_accountant

    finite(delta, "delta", above=0, at_most=math.nextafter(1, 0))
    if not np.isfinite(curve).any():
        return math.inf
    known = np.isfinite(curve)
    orders = np.array(ORDERS)[known]

    def ideal(left: float) -> float:
        return float(rdp_privacy_accountant.compute_epsilon(orders, curve[known], left)[0])

    return beyond_distance(ideal, delta, distance)


def divergence(charge: Charge, order: int) -> float:
    """Rényi divergence of a whole order of one step of `charge`, in nats; `math.inf` without noise."""
    if charge.mechanism == "none":
        return math.inf
    if charge.mechanism == "gaussian":
        return _sampled_gaussian(charge.q, charge.sigma, order)
    each = charge.sigma * charge.norm / math.sqrt(charge.terms)
    shift = Shift(norm=charge.norm, lanes=charge.lanes, sigma=each, terms=charge.terms)
    return float(_curve(charge.mechanism, shift)[ORDERS.index(order)])


@lru_cache(maxsize=64)
def _curve(mechanism: str, shift: Shift) -> NDArray[np.float64]:
    return discrete_gaussian_curve(shift) if mechanism == "discrete-gaussian" else skellam_curve(shift)


@lru_cache(maxsize=4096)
def _sampled_gaussian(q: float, sigma: float, order: int) -> float:
    if q == 1:
        return order / (2 * sigma**2)
    taken = np.arange(order + 1)
    chosen = gammaln(order + 1) - gammaln(taken + 1) - gammaln(order - taken + 1)
    terms = chosen + taken * math.log(q) + (order - taken) * math.log1p(-q) + taken * (taken - 1) / (2 * sigma**2)
    return max(0.0, float(logsumexp(terms))) / (order - 1)
