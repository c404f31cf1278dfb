"""The least noise that keeps an epsilon, and the finest integers that a ring has room for."""

from __future__ import annotations

import math
from dataclasses import replace

from common.errors import Code, Refusal
from common.privacy.accounting import ONLINE, smallest_sigma, total_epsilon
from common.privacy.mechanism import MechanismPlan
from common.privacy.units import Unit

RING = 2**31 - 1  # largest integer of a lane in secure aggregation with 32 bits
WIDEST = 8  # standard deviations of noise that must fit the ring


def calibrated(plan: MechanismPlan) -> MechanismPlan:
    """`plan` with the least noise whose planned releases keep its epsilon, by the figure that gates use."""

    def cost(sigma: float, interval: float) -> float:
        return _cost(replace(plan, noise_multiplier=sigma), interval)

    return replace(plan, noise_multiplier=smallest_sigma(cost, plan.epsilon, ONLINE))


def _cost(plan: MechanismPlan, interval: float) -> float:
    """Epsilon of all planned releases."""
    return total_epsilon([plan.charge(plan.steps * plan.releases)], plan.delta, interval)


def fitted_and_calibrated(start: MechanismPlan, sites: int, most: float) -> MechanismPlan:
    """`start` with the least noise that keeps its epsilon, at the finest scale that the ring allows."""
    fitted = _fitted(calibrated(start), sites, most)
    return fitted if _cost(fitted, ONLINE) <= fitted.epsilon else calibrated(fitted)


def _fitted(plan: MechanismPlan, sites: int, most: float) -> MechanismPlan:
    """`plan` with the finest scale, a power of two, at which the sum of `most` units of all sites fits the ring."""
    noise = 1.05 * WIDEST * plan.noise_multiplier * math.sqrt(max(sites, plan.honest) / plan.honest)
    room = RING - noise * math.sqrt(plan.dimension)
    scale = min(plan.scale, power_of_two(max(room, 1.0) / (plan.record_bound * (most + noise))))
    if scale * plan.record_bound < math.sqrt(plan.dimension):
        raise unfit(
            "Model and cohort do not fit the ring",
            f"a scale of {scale:g} would add more noise for rounding than for the records",
            "Lower sampling_rate, or train a smaller model" if plan.unit is Unit.RECORD else "Train a smaller model",
        )
    return replace(plan, scale=scale)


def power_of_two(value: float) -> float:
    """The largest power of two that is at most `value`."""
    return 2.0 ** math.floor(math.log2(value))


def unfit(what: str, why: str, do: str) -> Refusal:
    """Settings that cannot live together."""
    return Refusal(Code.JOB_INVALID, what, why, do)
