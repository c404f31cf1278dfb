"""Can an adversary tell which records were trained on? Thresholds on the loss, and likelihood ratios (LiRA)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import finite
from common.data import Records
from common.parameters import assign
from common.privacy.units import Unit
from common.randomness import child_numpy
from common.work import Work, model_of
from simulations.audits import lira, site_membership
from simulations.audits.attack_curves import (
    Scores,
    Statistic,
    auc,
    bootstrap,
    curve,
    hit_rate,
    largest_auc,
    largest_rate,
)
from simulations.audits.claimed import Claim, signed_claim, simulated_work, worst
from simulations.audits.gradients import losses_of
from simulations.audits.intervals import Interval, verdict
from simulations.audits.models import flat_of
from simulations.audits.runs import Run
from simulations.audits.shadows import course_of, shadow
from simulations.baselines import union
from simulations.rebuilt import rebuilt

SHADOWS = 16
RATES = {"1_percent": 0.01, "0.1_percent": 0.001}
CURVE = np.logspace(-3, 0, 31)[:-1]  # false positive rates of the figure
METHOD = (
    "Members are the training records, others the held-out ones; the attacker knows all but who is which. Intervals "
    "are of a bootstrap over records, at 95 % over all figures together, compared with the most that the claimed "
    "epsilon allows any attack: PASS if the whole interval lies within, FAIL if it lies beyond. That an attack finds "
    "little is no evidence of privacy."
)

Step = Callable[[int], object]
Parted = Mapping[str, tuple[Scores, Scores]]  # scores of members and of others by attack


def audit(run: Run, shadows: int = SHADOWS, step: Step = lambda _: None) -> dict[str, Any]:
    """Every number of the membership audit, plain values ready for JSON.

    shadows  models trained for the likelihood ratios      step  is told after each of them
    Of a run that protects whole sites the members are sites: `site_membership`.
    Errors: Refusal DATA_INVALID for a run that was no simulation or is not as written; CONFIG_INVALID.
    """
    finite(shadows, "shadows", at_least=4, at_most=4096)
    work, claim = simulated_work(run), signed_claim(run)
    kind = SITES if work.training.unit is Unit.SITE else RECORDS
    parted = kind.attack(run, work, shadows, step)
    members, others = next(iter(parted.values()))
    metrics = _metrics(parted, claim, kind, child_numpy(work.job.seed, "audit", "bootstrap"))
    judged = [metric for metric in metrics.values() if metric["tolerance"] is not None]
    outcome = worst(metrics)
    return {
        "verdict": outcome.value,
        "reason": claim.missing or _reason(metrics, len(judged), outcome.value),
        "claimed": claim.epsilon,
        "delta": claim.delta,
        **({"unit": Unit.SITE.value} if kind is SITES else {}),
        "members": members.size,
        "others": others.size,
        "shadows": shadows,
        "method": kind.method,
        "metrics": metrics,
        "curves": {name: curve(*scores, CURVE) for name, scores in parted.items()},
        "rates": CURVE.tolist(),
        "allowed": None if claim.epsilon is None else [largest_rate(r, claim.epsilon, claim.delta) for r in CURVE],
    }


def _records(run: Run, work: Work, shadows: int, step: Step) -> Parted:
    """Scores of the real records that the run trained on, and of the others, by attack."""
    sites = rebuilt(run.facts)
    pools = [union([site.real, site.holdout]) for site in sites]
    members = np.concatenate([np.arange(len(pool)) < len(site.real) for pool, site in zip(pools, sites, strict=True)])
    everybody = union(pools)
    task, model = work.job.training.task(work.job.data.classes), model_of(work.job)
    assign(model, flat_of(run.model or b"", work.layout))
    trained = _shadows(run, work, pools, (shadows, float(members.mean())), step)
    sure = lira.confidence(model, task, everybody)
    found = {
        "loss": -losses_of(model, task.losses, everybody),
        "lira_offline": lira.offline(trained, sure),
        "lira_online": lira.online(trained, sure),
    }
    return {name: (scores[members], scores[~members]) for name, scores in found.items()}


def _shadows(run: Run, work: Work, pools: list[Records], wanted: tuple[int, float], step: Step) -> lira.Shadows:
    """The shadow models of a run: so many, each on a share of every site's records as large as the run's own."""
    (count, share), seed = wanted, work.job.seed
    course, task, everybody = course_of(run, work), work.job.training.task(work.job.data.classes), union(pools)
    streams = [child_numpy(seed, "members of shadows", site) for site in range(len(pools))]
    drawn = [_drawn(len(pool), count, share, stream) for pool, stream in zip(pools, streams, strict=True)]
    confidences = []
    for number in range(count):
        own = [pool.take(np.flatnonzero(rows[number])) for pool, rows in zip(pools, drawn, strict=True)]
        bench = shadow(course, own, (seed, number))
        confidences.append(lira.confidence(bench.model, task, everybody))
        step(1)
    return lira.Shadows(np.concatenate(drawn, axis=1), np.stack(confidences))


def _drawn(records: int, count: int, share: float, stream: np.random.Generator) -> NDArray[np.bool_]:
    """bool [count, records]: every record is in the same number of models, in others than the next one."""
    inside = min(count - 2, max(2, round(share * count)))
    order = np.argsort(stream.random((count, records)), axis=0)
    return order < inside


@dataclass(frozen=True)
class Kind:
    """What is guessed: records or sites. rates: false alarms at which members found are counted.

    interval  of a figure, from the scores of members and of others
    """

    attack: Callable[[Run, Work, int, Step], Parted]
    interval: Callable[[Scores, Scores, Statistic, np.random.Generator, float], Interval]
    rates: Mapping[str, float]
    method: str


RECORDS = Kind(
    _records,
    lambda members, others, of, stream, level: bootstrap(members, others, of, stream, level=level),
    RATES,
    METHOD,
)
SITES = Kind(
    site_membership.attacked,
    lambda members, others, _, __, level: site_membership.paired(members, others, level),
    {},
    site_membership.METHOD,
)


def _metrics(parted: Parted, claim: Claim, kind: Kind, stream: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Area and rates of each attack against what the claim allows; rates that too few others can show have none."""
    asked: list[tuple[str, Statistic, float]] = [("auc", auc, 0.0)]
    asked += [(f"tpr_at_{name}", hit_rate(rate), rate) for name, rate in kind.rates.items()]
    level = 1 - 0.05 / (len(parted) * len(asked))
    found = {}
    for attack, (members, others) in parted.items():
        for name, of, rate in asked:
            interval = kind.interval(members, others, of, stream, level)
            found[f"{attack}_{name}"] = _judged(interval, rate, others.size, claim)
    return found


def _judged(interval: Interval, rate: float, others: int, claim: Claim) -> dict[str, Any]:
    visible = not rate or rate * others >= 1
    tolerance = None
    if claim.epsilon is not None and visible:
        tolerance = largest_rate(rate, claim.epsilon, claim.delta) if rate else largest_auc(claim.epsilon, claim.delta)
    if not visible:
        why = f"{others} held-out records cannot show a rate of {100 * rate:g} %; {round(1 / rate)} could"
    elif tolerance is None:
        why = claim.missing
    else:
        why = f"the claimed epsilon allows {100 * tolerance:.1f} % at most; guessing gives {100 * (rate or 0.5):g} %"
    return {**vars(interval), "tolerance": tolerance, "verdict": verdict(interval, tolerance).value, "reason": why}


def _reason(metrics: Mapping[str, Mapping[str, Any]], judged: int, outcome: str) -> str:
    count = sum(one["verdict"] == outcome for one in metrics.values() if one["tolerance"] is not None)
    best = max(one["value"] for name, one in metrics.items() if name.endswith("auc"))
    return (
        f"{count} of {judged} figures: {outcome}; the best attack has an area of {100 * best:.1f} %, guessing has 50 %"
    )
