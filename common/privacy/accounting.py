"""Epsilon of what was released: privacy loss distributions of dp-accounting, composed and never averaged.

Figures are pessimistic: the true epsilon is never above the printed one. Gaussian differential privacy (the central
limit approximation) is not offered, because it reports up to 12 % too little.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np

from common.config import finite
from common.errors import Code, Refusal
from common.privacy.charges import Charge, beyond_distance, total_distance
from common.privacy.integers import summed_gaussians
from common.privacy.renyi import ORDERS, divergence, epsilon_of

REPORT = 1e-4  # interval of the discretised privacy loss, for reports and audits
ONLINE = 5e-4  # for gates: at 1e-3, 15 000 steps would print 0.01 too much
GROUP = 2e-3  # for persons with several records, whose losses take long to compose
MOST_STEPS = 10_000_000
MOST_RECORDS = 10_000  # of one person
LEAST_SIGMA = 0.05  # below it a single sum costs an epsilon of hundreds
LARGEST_SIGMA = 1e6  # calibration looks no further
FINEST = 1e6  # points that the mean privacy loss may span before the interval is widened


@cache
def accountant() -> str:
    """Name and version of what computes epsilon, as every claim prints it."""
    return f"PLD, dp-accounting {version('dp-accounting')}"


def epsilon(*, q: float, sigma: float, steps: int, delta: float, interval: float = REPORT) -> float:
    """Epsilon at `delta` of `steps` Poisson-sampled Gaussian sums, add or remove one record.

    q         chance of each record to enter a step      sigma  noise over clipping bound
    interval  discretisation of the privacy loss; smaller is tighter and slower
    Errors: Refusal CONFIG_INVALID naming the argument.
    Source: Koskela et al. 2020; Doroshenko et al. 2022 (pessimistic connect-the-dots discretisation).

    >>> round(epsilon(q=0.01, sigma=1.0, steps=1000, delta=1e-5), 3)
    1.828
    """
    check_sampling(q, steps, delta)
    _check_sigma(sigma)
    return total_epsilon([Charge(mechanism="gaussian", q=q, sigma=sigma, steps=steps)], delta, interval)


def sigma_for(
    *, epsilon: float, q: float, steps: int, delta: float, records: int = 1, interval: float = ONLINE
) -> float:
    """The smallest noise multiplier, rounded up to 4 decimals, that keeps `steps` releases within `epsilon`.

    records  most records of the person who is protected, as in `person_epsilon`
    Errors: Refusal CONFIG_INVALID naming the argument, or saying that no noise multiplier is enough.

    >>> sigma_for(epsilon=0.7255, q=1.0, steps=1, delta=1e-5) <= 5.01
    True
    """
    check_sampling(q, steps, delta)
    finite(epsilon, "epsilon", above=0)
    finite(records, "records", above=0, at_most=MOST_RECORDS)
    sample = Charge(mechanism="gaussian", q=q, sigma=1.0, steps=steps)

    def cost(sigma: float, grid: float) -> float:
        if records > 1:
            return _group_epsilon(replace(sample, sigma=sigma), records, delta, max(grid, GROUP))
        return total_epsilon([replace(sample, sigma=sigma)], delta, grid)

    return smallest_sigma(cost, epsilon, interval)


def person_epsilon(*, q: float, sigma: float, steps: int, delta: float, records: int, interval: float = GROUP) -> float:
    """As `epsilon`, for a person with at most `records` records: how many of them enter a step is binomial.

    Exact group accounting, much tighter than `records` times epsilon.
    Errors: Refusal CONFIG_INVALID naming the argument.
    Source: mixture-of-Gaussians mechanism, Choquette-Choo et al. 2024.

    >>> round(person_epsilon(q=0.01, sigma=2.0, steps=10, delta=1e-5, records=4, interval=1e-2), 1)
    0.3
    """
    check_sampling(q, steps, delta)
    _check_sigma(sigma)
    finite(records, "records", above=0, at_most=MOST_RECORDS)
    if records == 1:
        return epsilon(q=q, sigma=sigma, steps=steps, delta=delta, interval=interval)
    charge = Charge(mechanism="gaussian", q=q, sigma=sigma, steps=steps)
    return _group_epsilon(charge, records, delta, interval)


def _group_epsilon(charge: Charge, records: int, delta: float, interval: float) -> float:
    from scipy.stats import binom

    present = range(records + 1)
    loss = _distributions().from_mixture_gaussian_mechanism(
        standard_deviation=charge.sigma,
        sensitivities=list(present),
        sampling_probs=[float(binom.pmf(count, records, charge.q)) for count in present],
        value_discretization_interval=interval,
    )
    return float(loss.self_compose(charge.steps).get_epsilon_for_delta(delta))


def total_epsilon(charges: Iterable[Charge], delta: float, interval: float = REPORT) -> float:
    """Epsilon at `delta` of all `charges` together, in any order; `math.inf` if one of them has no noise.

    The distance of each integer mechanism from the ideal one is paid from delta: the figure is the smallest epsilon
    with delta_ideal(epsilon) + (1 + e^epsilon) * distance <= delta, and `math.inf` if there is none.
    Vectors of integers have two such figures, by Rényi divergences and by the Gaussian they are close to. Both hold,
    so the smaller one counts.
    """
    finite(delta, "delta", above=0, below=1)
    listed = list(charges)
    if any(charge.vector for charge in listed):
        return min(_by_orders(listed, delta), _as_gaussians(listed, delta, interval))
    spent: Counter[Charge] = Counter()
    for charge in listed:
        spent[replace(charge, steps=1)] += charge.steps
    merged = tuple(sorted((replace(one, steps=steps) for one, steps in spent.items() if steps), key=repr))
    return _epsilon(merged, delta, max(interval, math.fsum(map(_mean_loss, merged)) / FINEST))


def smallest_sigma(cost: Callable[[float, float], float], epsilon: float, interval: float = ONLINE) -> float:
    """The least multiple of 0.0001 at which the decreasing cost(sigma, interval) is at most `epsilon`.

    A coarse figure, ten times cheaper, says where to look. Whole numbers, so that server and sites find the same.
    """
    rough = _least(lambda sigma: cost(sigma, 10 * interval), epsilon, near=10_000, stride=4_000)
    return _least(lambda sigma: cost(sigma, interval), epsilon, near=rough, stride=1) / 10_000


def _least(cost: Callable[[float], float], epsilon: float, *, near: int, stride: int) -> int:
    """Smallest n with cost(n / 10 000) <= epsilon: steps of growing size away from `near`, then bisection."""
    low = high = near
    if cost(near / 10_000) <= epsilon:
        while low > LEAST_SIGMA * 10_000 and cost(low / 10_000) <= epsilon:
            low, high, stride = max(low - stride, round(LEAST_SIGMA * 10_000)), low, 2 * stride
    else:
        while cost(high / 10_000) > epsilon:
            low, high, stride = high, high + stride, 2 * stride
            if high > LARGEST_SIGMA * 10_000:
                raise Refusal(
                    Code.CONFIG_INVALID,
                    f"epsilon = {epsilon:g} not reachable",
                    "no noise multiplier is large enough for these steps at this delta",
                    "Allow a larger epsilon or fewer rounds",
                )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle / 10_000) <= epsilon else (middle, high)
    return high


def check_sampling(q: float, steps: int, delta: float) -> None:
    """Refuse a sampling rate, step count or delta outside its range. Errors: Refusal CONFIG_INVALID."""
    finite(q, "q", above=0, at_most=1)
    finite(delta, "delta", above=0, below=1)
    finite(steps, "steps", above=0, at_most=MOST_STEPS)
    if not isinstance(steps, int):
        raise Refusal(Code.CONFIG_INVALID, f"steps = {steps}", "it counts releases", "Use a whole number")


def _mean_loss(charge: Charge) -> float:
    """An upper bound of the expected privacy loss: by convexity, and by the chi-squared divergence."""
    if not charge.sigma:
        return 0.0
    inverse = charge.sigma**-2
    return charge.steps * min(charge.q * inverse / 2, charge.q**2 * math.expm1(min(inverse, 100.0)))


def _check_sigma(sigma: float) -> None:
    finite(sigma, "sigma", above=0)
    if sigma < LEAST_SIGMA:
        raise Refusal(
            Code.CONFIG_INVALID,
            f"sigma = {sigma:g}",
            f"noise below {LEAST_SIGMA} of the clipping bound hides nothing",
            "Use more noise",
        )


@lru_cache(maxsize=4096)
def _epsilon(charges: tuple[Charge, ...], delta: float, interval: float) -> float:
    if not charges:
        return 0.0
    if any(charge.mechanism == "none" for charge in charges):
        return math.inf
    loss = _composed(charges, interval)
    return beyond_distance(lambda left: float(loss.get_epsilon_for_delta(left)), delta, total_distance(charges))


def _by_orders(charges: list[Charge], delta: float) -> float:
    """By Rényi divergences, which hold for any change of bounded norm."""
    curve = np.zeros(len(ORDERS))
    for one in charges:
        curve += one.steps * np.array([divergence(one, order) for order in ORDERS])
    return epsilon_of(curve, delta, total_distance(charges))


def _as_gaussians(charges: list[Charge], delta: float, interval: float) -> float:
    """By the Gaussians that noisy vectors of integers are close to; `math.inf` where that is not proved."""
    close = [one.as_gaussian() if one.vector else one for one in charges]
    known = [one for one in close if one is not None]
    return total_epsilon(known, delta, interval) if len(known) == len(close) else math.inf


def _composed(charges: tuple[Charge, ...], interval: float) -> Any:
    loss = _repeated(replace(charges[-1], divergence=0.0, distance=0.0), interval)
    return _composed(charges[:-1], interval).compose(loss) if charges[1:] else loss


@lru_cache(maxsize=256)
def _repeated(charge: Charge, interval: float) -> Any:
    once = _single(replace(charge, steps=1), interval)
    return once.self_compose(charge.steps) if charge.steps > 1 else once


@lru_cache(maxsize=64)
def _single(charge: Charge, interval: float) -> Any:
    sampled = {"value_discretization_interval": interval, "sampling_prob": charge.q}
    if charge.mechanism != "discrete-gaussian":
        return _distributions().from_gaussian_mechanism(charge.sigma, **sampled)
    if charge.terms == 1:
        return _distributions().from_discrete_gaussian_mechanism(charge.sigma, 1, **sampled)
    if charge.q != 1:
        raise Refusal(
            Code.JOB_INVALID, "Sampled counts not accounted for", "they are released in full", "Use a rate of 1"
        )
    without = summed_gaussians(charge.sigma, charge.terms)
    one_more = {outcome + 1: chance for outcome, chance in without.items()}
    return _distributions().from_two_probability_mass_functions(
        without, one_more, value_discretization_interval=interval, symmetric=True
    )


def _distributions() -> Any:
    """dp-accounting's module, imported late: a command that only prints help need not wait a second for it."""
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution
