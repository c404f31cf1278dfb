"""From what a job asks for to the mechanism that gives it: scale, sensitivity, and noise found by bisection."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from common.errors import Refusal
from common.privacy.fitting import calibrated, fitted_and_calibrated, power_of_two, unfit
from common.privacy.mechanism import MechanismPlan
from common.privacy.settings import PrivacySettings
from common.privacy.units import Adversary, Relation, Unit

__all__ = ["MechanismPlan", "PrivacySettings", "plan_counts", "plan_training"]

FINE = 2**20  # integers for one clip at most; the ring may allow fewer. Rounding then costs next to nothing
LIVE_LANES = 2  # loss and accuracy
FEWEST = 8  # expected records of all sites in one step
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
    summed: int | None = None,
) -> MechanismPlan:
    """The plan of one round's training release.

    rounds, local_steps  of the job            dimension  trainable parameters of the model
    quorum, sites        fewest and most reports in one sum; the fewest also if the coordinator lies
    records              public nominal number of training records of all sites together
    summed               of those the most that one sum is made of, where rounds ask some sites only
    Guarantee: equal arguments give equal plans, so server and sites need not trust each other's.
    Errors: Refusal JOB_INVALID for settings that cannot live together, CONFIG_INVALID if no noise is enough.
    """
    if not settings.private:
        return plain_plan(settings, dimension, steps=local_steps, releases=rounds)
    _refuse_weak(settings, local_steps, records)
    share, clip = settings.metric_share or 0.0, asked(settings.clip)
    together = settings.mode == "M2"
    start = MechanismPlan(
        mode=settings.mode,
        partition="train",
        purpose="train",
        mechanism="gaussian",
        sampler="poisson",
        sampling_rate=asked(settings.sampling_rate),
        noise_multiplier=1.0,
        clip=clip,
        lane_bound=share * clip,
        loss_bound=settings.loss_bound or 0.0,
        record_bound=clip * math.sqrt(1 + LIVE_LANES * share**2),
        steps=local_steps,
        releases=rounds + int(asked(settings.spare_rounds)),
        dimension=dimension + LIVE_LANES * bool(share),
        honest=honest_of(settings, quorum),
        scale=FINE / power_of_two(clip) if together else 1.0,
        epsilon=asked(settings.epsilon),
        delta=asked(settings.delta),
        unit=Unit.RECORD,
        relation=Relation.ADD_OR_REMOVE_ONE,
        adversary=Adversary.SERVER_AND_COLLUDERS if together else Adversary.OUTSIDE_THE_SITE,
        noise=settings.noise,
    )
    if not together:
        return calibrated(start)
    # records beyond CROWD times the expected number could wrap a lane: that spoils a sum, never the guarantee
    most = records if summed is None else summed
    return fitted_and_calibrated(start, sites, CROWD * start.sampling_rate * most + FEWEST)


@lru_cache(maxsize=256)
def plan_counts(settings: PrivacySettings, *, cells: int, releases: int, quorum: int) -> MechanismPlan:
    """The plan of one release of counts over held-out records, each of which is counted in one of `cells` cells.

    releases  of the whole job; together they keep `evaluation_epsilon`
    Each count gets discrete Gaussian noise; the guarantee of that is exact, not that of a Gaussian close to it.
    Errors: Refusal JOB_INVALID, CONFIG_INVALID.
    """
    plain = replace(plain_plan(settings, cells, steps=1, releases=releases), partition="holdout", purpose="counts")
    if not settings.private:
        return plain
    together = settings.together
    return calibrated(
        replace(
            plain,
            mechanism="discrete-gaussian",
            record_bound=1.0,
            honest=honest_of(settings, quorum),
            epsilon=asked(settings.evaluation_epsilon),
            delta=asked(settings.delta),
            adversary=Adversary.SERVER_AND_COLLUDERS if together else Adversary.OUTSIDE_THE_SITE,
        )
    )


def plain_plan(settings: PrivacySettings, dimension: int, *, steps: int, releases: int) -> MechanismPlan:
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
        raise unfit(
            f"local_steps = {local_steps} with mode M2",
            "noise that is added up between sites hides each step only if each step is a sum of its own",
            "Set local_steps = 1 or use mode M1",
        )
    expected = asked(settings.sampling_rate) * records
    if expected < FEWEST:
        raise unfit(
            f"privacy.sampling_rate = {settings.sampling_rate}",
            f"a step would hold {expected:.1f} records on average, fewer than {FEWEST}",
            "Raise it",
        )
    if asked(settings.delta) * records >= 1:
        raise too_large(settings.delta, records, "records")


def too_large(delta: float | None, units: int, name: str) -> Refusal:
    why = f"with {units} {name} it would allow to publish one of them whole"
    return unfit(f"privacy.delta = {delta}", why, f"Choose at most {0.1 / units:.0e}")


def honest_of(settings: PrivacySettings, quorum: int) -> int:
    """Sites whose noise is sure to be in a sum and unknown to the server."""
    if not settings.together:
        return 1
    honest = quorum - int(asked(settings.colluding))
    if honest < 1:
        raise unfit(
            f"privacy.colluding = {settings.colluding}",
            f"of {quorum} sites, which a sum is sure to hold, no honest site would be left to add noise",
            "Raise the quorum or expect fewer colluding sites",
        )
    return honest


def asked(value: float | None) -> float:
    """A setting that `PrivacySettings` has checked to be there."""
    if value is None:
        raise unfit("A privacy setting is missing", "the mode needs it", "Complete the table [privacy]")
    return value
