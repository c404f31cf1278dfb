"""What lying sites have done to a run: its model on held-out records, clean and triggered, beside that of no attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from common.data import Records
from common.job import Job
from common.parameters import Flat, assign
from common.work import Work, model_of
from simulations.adversaries.settings import Adversaries
from simulations.adversaries.success import Classes, success
from simulations.scenario import Scenario

MOST_LISTED = 64  # liars that are told by name


@dataclass(frozen=True, repr=False, eq=False)
class Damage:
    """What a run with lying sites adds to its record.

    entry  `adversaries` of run.json
    curve  after each round: share of triggered held-out records that get the class which the attack wants; empty where
           it wants none
    """

    entry: dict[str, Any]
    curve: tuple[float | None, ...]


def damage(scenario: Scenario, work: Work, held: Records, models: Sequence[Flat], unattacked: Flat) -> Damage:
    """The damage in a world with lying sites. Errors: ValueError for an honest one.

    held        held-out records of all sites, as they are
    models      parameters after each round, the last one being the result
    unattacked  those that the same world comes to if nobody lies: its rate is the base rate, from which a lift counts
    """
    plan = scenario.world.adversaries
    if plan is None:
        raise ValueError("nobody lies in this world")
    wanted = _triggered(plan, work.job, held)
    curve = [_hits(work.job, model, wanted) for model in models] if wanted is not None else []
    clean = _compared(_hits(work.job, models[-1], held), _hits(work.job, unattacked, held))
    entry = {
        **_who(plan, work, scenario.world.seed),
        "tested": len(held),
        **{name: clean[old] for name, old in (("accuracy", "rate"), ("without", "base"), ("difference", "lift"))},
        "backdoor": None if wanted is None else _backdoor(curve[-1], _hits(work.job, unattacked, wanted)),
    }
    return Damage(entry, tuple(_share(hits) for hits in curve))


def _who(plan: Adversaries, work: Work, seed: int) -> dict[str, Any]:
    """Who lies since when, and how."""
    liars = sorted(plan.liars(len(work.roster.ids), seed))
    updates = plan.updates
    return {
        "count": len(liars),
        "sites": [work.roster.site(site).name for site in liars[:MOST_LISTED]],
        "from_round": plan.from_round,
        "records": plan.records.attack if plan.records else None,
        "updates": updates.attack if updates else None,
        "knows": updates.knows if updates else None,
        "adaptive": bool(updates and updates.adaptive),
    }


def _triggered(plan: Adversaries, job: Job, held: Records) -> Records | None:
    """The held-out records by which success is measured, labelled as the attack wants; None where it wants nothing."""
    poisoning = plan.records.poisoning(job.data) if plan.records else None
    return poisoning.trigger(held) if poisoning and poisoning.trigger else None


def _backdoor(attacked: Classes, unattacked: Classes) -> dict[str, Any]:
    return {"tested": len(attacked), **_compared(attacked, unattacked)}


def _compared(attacked: Classes, unattacked: Classes) -> dict[str, Any]:
    """Rates of hits with and without the attack, and their difference, each with its interval; None without records."""
    found = success(attacked, unattacked, np.ones_like(attacked))
    return asdict(found) if found else {"rate": None, "base": None, "lift": None}


@torch.no_grad()
def _hits(job: Job, parameters: Flat, records: Records) -> Classes:
    """1 for each record that gets its label, else 0; also where the model has left the finite numbers."""
    if not len(records) or not np.isfinite(parameters).all():
        return np.zeros(len(records), np.int64)
    task, model = job.training.task(job.data.classes), model_of(job)
    assign(model, parameters)
    model.eval()
    found: Classes = task.correct(model(records.inputs), records.labels).long().numpy()
    return found


def _share(hits: Classes) -> float | None:
    return float(hits.mean()) if len(hits) else None
