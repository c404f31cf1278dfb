"""Plans in which the unit of privacy is a whole site, and of noise for single records inside them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from common.privacy.fitting import calibrated, fitted_and_calibrated, turned_and_calibrated, unfit
from common.privacy.mechanism import MechanismPlan
from common.privacy.plan import asked, honest_of, plain_plan, plan_training, too_large
from common.privacy.settings import LocalPrivacy, PrivacySettings
from common.privacy.units import Adversary, Unit
from common.randomness import NoiseKind

FINE_SITE = 2**20  # the same where few vectors are added, so that the ring has room
BIT_COST = 1.05  # largest factor of the noise for knowing how many updates were clipped


@lru_cache(maxsize=256)
def plan_local(
    local: LocalPrivacy,
    *,
    delta: float,
    noise: NoiseKind,
    local_steps: int,
    releases: int,
    dimension: int,
    records: int,
) -> MechanismPlan:
    """The plan of the noise for single records inside a mode whose unit is the site: M1, under its own promise.

    releases  of the job        records  public nominal number of all sites together
    Errors: Refusal JOB_INVALID, CONFIG_INVALID.
    """
    settings = PrivacySettings(
        mode="M1", unit="record", epsilon=local.epsilon, delta=delta, clip=local.clip,
        sampling_rate=local.sampling_rate, spare_rounds=0, evaluation_epsilon=local.epsilon, noise=noise,
    )  # fmt: skip
    plan = plan_training(
        settings, rounds=releases, local_steps=local_steps, dimension=dimension, quorum=1, sites=1, records=records
    )
    return replace(plan, layered=True)


@lru_cache(maxsize=256)
def plan_site(
    settings: PrivacySettings,
    *,
    rounds: int,
    dimension: int,
    quorum: int,
    sites: int,
    population: int | None = None,
    bits: int | None = None,
) -> MechanismPlan:
    """The plan of one round's release in which a unit is a whole site: one vector, an update over the clip.

    rounds  of the job        dimension  trainable parameters of the model
    quorum, sites  fewest and most reports in one sum; the fewest also if the coordinator lies
    population  of which those are; left out, no more than they
    bits  of the ring, where the job names one: vectors are then rotated, and noised by the settings' `mechanism`
    A clip that adapts adds one lane, which says whether the update was clipped, with noise of `_SPREAD` sites.
    Guarantee: as `plan_training`. Errors: Refusal JOB_INVALID, CONFIG_INVALID.
    Source: McMahan et al. 2018 (M3); Kairouz, Liu and Steinke 2021 (M4); Kalinin and Lampert 2024 (M5); Andrew et al.
    2021, section 2 and theorem 1 (the clip).
    """
    units = sites if population is None else population
    if asked(settings.delta) * units >= 1:
        raise too_large(settings.delta, units, "sites")
    _refuse_half_a_codec(settings, bits)
    turns = -(-rounds // settings.separation) if settings.separation else rounds
    start = replace(
        plain_plan(settings, dimension + (settings.quantile is not None), steps=1, releases=turns),
        mechanism="gaussian",
        noise_multiplier=1.0,
        clip=asked(settings.clip),
        record_bound=1.0,
        releases=turns + int(asked(settings.spare_rounds)),
        honest=honest_of(settings, quorum),
        scale=float(FINE_SITE),
        epsilon=asked(settings.epsilon),
        delta=asked(settings.delta),
        unit=Unit.SITE,
        adversary=Adversary.SERVER_AND_COLLUDERS if settings.together else Adversary.MODEL_USERS,
        separation=settings.separation or 0,
        adaptive=settings.quantile is not None,
        layered=settings.local is not None,
    )
    if start.adaptive:
        share = _bit_share(calibrated(start).noise_multiplier, sites)
        start = replace(start, lane_bound=share, record_bound=math.hypot(1.0, share))
    if bits is None or settings.mechanism is None:
        return fitted_and_calibrated(start, sites, float(sites))
    return turned_and_calibrated(start, sites, (bits, settings.mechanism))


def _refuse_half_a_codec(settings: PrivacySettings, bits: int | None) -> None:
    """The ring and the noise in it are chosen together, or neither is."""
    if bits is not None and settings.mechanism is None:
        does = 'Add privacy.mechanism = "discrete-gaussian"' if settings.mode == "M4" else "Remove aggregation.bits"
        raise unfit(f"aggregation.bits = {bits} in mode {settings.mode}", "no noise is chosen for such a ring", does)
    if bits is None and settings.mechanism is not None:
        raise unfit(
            f"privacy.mechanism = {settings.mechanism!r} without aggregation.bits",
            "nothing says for which ring its noise is drawn",
            "Add aggregation.bits, such as 20, or remove the line",
        )


def _bit_share(multiplier: float, sites: int) -> float:
    """Bound, in clips, of the lane that says whether an update was clipped: +-1/2, noised by sites / 20 deviations.

    So many as leave the updates' own noise at most BIT_COST larger, where that is more.
    Source: Andrew et al. 2021, theorem 1: z^-2 = z_update^-2 + (2 sigma_b)^-2.
    """
    spread = max(sites / 20, multiplier / (2 * math.sqrt(1 - BIT_COST**-2)))
    own = 1 / math.sqrt(multiplier**-2 - (2 * spread) ** -2)
    return own / (2 * spread)
