"""The least noise that keeps an epsilon, and the finest integers that a ring has room for."""

from __future__ import annotations

import math
from dataclasses import replace

from common.errors import Code, Refusal
from common.privacy.accounting import LARGEST_SIGMA, ONLINE, smallest_sigma, total_epsilon
from common.privacy.distributed import SiteMechanism
from common.privacy.mechanism import MechanismPlan
from common.privacy.units import Unit
from common.secagg.distributed import IntegerNoise

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


def turned_and_calibrated(start: MechanismPlan, sites: int, codec: tuple[int, IntegerNoise]) -> MechanismPlan:
    """`start` for vectors that are rotated, rounded at random, and added in a ring in which lanes may wrap.

    codec  bits of the ring, and what each site's noise is drawn from
    The noise is the least that keeps epsilon; the scale is as fine as `SiteMechanism` allows for it. What rounding adds
    to the norm is part of the sensitivity, so a coarse scale costs noise and never epsilon.
    Errors: Refusal JOB_INVALID if no noise is enough.
    """

    def at(multiplier: float) -> MechanismPlan:
        bits, noise = codec
        mechanism = SiteMechanism(
            noise=noise, dimension=start.dimension, metrics=0, metric_share=0.0, clip=start.record_bound, bits=bits,
            sites_max=max(2, sites), quorum=start.honest, colluding=0, noise_multiplier=multiplier,
        )  # fmt: skip
        plan = replace(start, mechanism=noise, bits=bits, scale=mechanism.scale)
        return replace(plan, noise_multiplier=multiplier * plan.scale * plan.record_bound / plan.sensitivity)

    def cost(multiplier: float, interval: float) -> float:
        return _cost(at(multiplier), interval)

    if cost(LARGEST_SIGMA, ONLINE) > start.epsilon:
        raise unfit(
            f"aggregation.bits = {codec[0]} for {start.dimension} values of {sites} sites",
            f"rounding to so few bits costs more than epsilon = {start.epsilon:g}, whatever the noise",
            "Take more bits, fewer rounds or a smaller model",
        )
    return at(smallest_sigma(cost, start.epsilon, ONLINE))


def power_of_two(value: float) -> float:
    """The largest power of two that is at most `value`."""
    return 2.0 ** math.floor(math.log2(value))


def unfit(what: str, why: str, do: str) -> Refusal:
    """Settings that cannot live together."""
    return Refusal(Code.JOB_INVALID, what, why, do)
