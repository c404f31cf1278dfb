"""From what a job asks for to the mechanism that gives it: scale, sensitivity, and noise found by bisection."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from common.errors import Code, Refusal
from common.privacy.accounting import ONLINE, smallest_sigma, total_epsilon
from common.privacy.mechanism import MechanismPlan
from common.privacy.settings import PrivacySettings
from common.privacy.units import Adversary, Relation, Unit

__all__ = ["MechanismPlan", "PrivacySettings", "plan_counts", "plan_training"]

RING = 2**31 - 1  # largest integer of a lane in secure aggregation with 32 bits
FINE = 2**16  # integers for one clip; rounding then costs next to nothing
LIVE_LANES = 2  # loss and accuracy
FEWEST = 8  # expected records of all sites in one step
WIDEST = 8  # standard deviations of noise that must fit the ring
CROWD = 4  # times the expected records of a step that must fit the ring


@lru_cache(maxsize=256)
def plan_training(
    settings: PrivacySettings,
    *,
    rounds: int,
    local_steps: int,
    dimension: int,
    quorum: int,
    sites: int,
    records: int,
) -> MechanismPlan:
    """The plan of one round's training release.

    rounds, local_steps  of the job            dimension  trainable parameters of the model
    quorum, sites        fewest and most reports in one sum; the fewest also if the coordinator lies
    records              public nominal number of training records of all sites together
    Guarantee: equal arguments give equal plans, so server and sites need not trust each other's.
    Errors: Refusal JOB_INVALID for settings that cannot live together, CONFIG_INVALID if no noise is enough.
    """
    if not settings.private:
        return _plain(settings, dimension, steps=local_steps, releases=rounds)
    _refuse_weak(settings, local_steps, records)
    share, clip = settings.metric_share or 0.0, _asked(settings.clip)
    together = settings.mode == "M2"
    start = MechanismPlan(
        mode=settings.mode,
        partition="train",
        purpose="train",
        mechanism="gaussian",
        sampler="poisson",
        sampling_rate=_asked(settings.sampling_rate),
        noise_multiplier=1.0,
        clip=clip,
        lane_bound=share * clip,
        loss_bound=settings.loss_bound or 0.0,
        record_bound=clip * math.sqrt(1 + LIVE_LANES * share**2),
        steps=local_steps,
        releases=rounds + int(_asked(settings.spare_rounds)),
        dimension=dimension + LIVE_LANES * bool(share),
        honest=_honest(settings, quorum),
        scale=FINE / _power(clip) if together else 1.0,
        epsilon=_asked(settings.epsilon),
        delta=_asked(settings.delta),
        unit=Unit.RECORD,
        relation=Relation.ADD_OR_REMOVE_ONE,
        adversary=Adversary.SERVER_AND_COLLUDERS if together else Adversary.OUTSIDE_THE_SITE,
        noise=settings.noise,
    )
    rough = _calibrated(start)
    if not together:
        return rough
    fitted = _fitted(rough, sites, records)
    return fitted if _cost(fitted, ONLINE) <= fitted.epsilon else _calibrated(fitted)


@lru_cache(maxsize=256)
def plan_counts(settings: PrivacySettings, *, cells: int, releases: int, quorum: int) -> MechanismPlan:
    """The plan of one release of counts over held-out records, each of which is counted in one of `cells` cells.

    releases  of the whole job; together they keep `evaluation_epsilon`
    Each count gets discrete Gaussian noise; the guarantee of that is exact, not that of a Gaussian close to it.
    Errors: Refusal JOB_INVALID, CONFIG_INVALID.
    """
    plain = replace(_plain(settings, cells, steps=1, releases=releases), partition="holdout", purpose="counts")
    if not settings.private:
        return plain
    together = settings.mode == "M2"
    return _calibrated(
        replace(
            plain,
            mechanism="discrete-gaussian",
            record_bound=1.0,
            honest=_honest(settings, quorum),
            epsilon=_asked(settings.evaluation_epsilon),
            delta=_asked(settings.delta),
            adversary=Adversary.SERVER_AND_COLLUDERS if together else Adversary.OUTSIDE_THE_SITE,
        )
    )


def _calibrated(plan: MechanismPlan) -> MechanismPlan:
    """`plan` with the least noise whose planned releases keep its epsilon, by the figure that gates use."""

    def cost(sigma: float, interval: float) -> float:
        return _cost(replace(plan, noise_multiplier=sigma), interval)

    return replace(plan, noise_multiplier=smallest_sigma(cost, plan.epsilon, ONLINE))


def _cost(plan: MechanismPlan, interval: float) -> float:
    """Epsilon of all planned releases."""
    return total_epsilon([plan.charge(plan.steps * plan.releases)], plan.delta, interval)


def _fitted(plan: MechanismPlan, sites: int, records: int) -> MechanismPlan:
    """`plan` with the finest scale, a power of two, at which the sum of all sites fits the ring.

    Records beyond CROWD times the expected number could wrap a lane: that spoils a sum, never the guarantee.
    """
    most = CROWD * plan.sampling_rate * records + FEWEST
    noise = 1.05 * WIDEST * plan.noise_multiplier * math.sqrt(max(sites, plan.honest) / plan.honest)
    room = RING - noise * math.sqrt(plan.dimension)
    scale = min(plan.scale, _power(max(room, 1.0) / (plan.record_bound * (most + noise))))
    if scale * plan.record_bound < math.sqrt(plan.dimension):
        raise _refused(
            "Model and cohort do not fit the ring",
            f"a scale of {scale:g} would add more noise for rounding than for the records",
            "Lower sampling_rate, or train a smaller model",
        )
    return replace(plan, scale=scale)


def _plain(settings: PrivacySettings, dimension: int, *, steps: int, releases: int) -> MechanismPlan:
    """A release of everything, as it is."""
    return MechanismPlan(
        mode=settings.mode,
        partition="train",
        purpose="train",
        mechanism="none",
        sampler="all",
        sampling_rate=1.0,
        noise_multiplier=0.0,
        clip=0.0,
        lane_bound=0.0,
        loss_bound=0.0,
        record_bound=0.0,
        steps=steps,
        releases=releases,
        dimension=dimension,
        honest=1,
        scale=1.0,
        epsilon=0.0,
        delta=0.0,
        unit=Unit.RECORD,
        relation=Relation.ADD_OR_REMOVE_ONE,
        adversary=Adversary.NONE,
        noise=settings.noise,
    )


def _refuse_weak(settings: PrivacySettings, local_steps: int, records: int) -> None:
    if settings.mode == "M2" and local_steps != 1:
        raise _refused(
            f"local_steps = {local_steps} with mode M2",
            "noise that is added up between sites hides each step only if each step is a sum of its own",
            "Set local_steps = 1 or use mode M1",
        )
    expected = _asked(settings.sampling_rate) * records
    if expected < FEWEST:
        raise _refused(
            f"privacy.sampling_rate = {settings.sampling_rate}",
            f"a step would hold {expected:.1f} records on average, fewer than {FEWEST}",
            "Raise it",
        )
    if _asked(settings.delta) * records >= 1:
        raise _refused(
            f"privacy.delta = {settings.delta}",
            f"with {records} records it would allow to publish one of them whole",
            f"Choose at most {0.1 / records:.0e}",
        )


def _honest(settings: PrivacySettings, quorum: int) -> int:
    """Sites whose noise is sure to be in a sum and unknown to the server."""
    if settings.mode != "M2":
        return 1
    honest = quorum - int(_asked(settings.colluding))
    if honest < 1:
        raise _refused(
            f"privacy.colluding = {settings.colluding}",
            f"of {quorum} sites, which a sum is sure to hold, no honest site would be left to add noise",
            "Raise the quorum or expect fewer colluding sites",
        )
    return honest


def _asked(value: float | None) -> float:
    """A setting that `PrivacySettings` has checked to be there."""
    if value is None:
        raise _refused("A privacy setting is missing", "the mode needs it", "Complete the table [privacy]")
    return value


def _power(value: float) -> float:
    """The largest power of two that is at most `value`."""
    return 2.0 ** math.floor(math.log2(value))


def _refused(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.JOB_INVALID, what, why, do)
