"""What the sites of a run of mode M3, M4 or M5 give in a round: an attacker who knows their records computes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from client.craft import batch_draws, unpaid
from client.private_step import train_privately
from client.site_level import bounded
from client.trainer import Workbench, train_plainly
from common.data import Records
from common.models.front import parted
from common.parameters import Flat
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.mechanism import MechanismPlan
from common.randomness import ReplayEntropy
from common.work import Work, model_of
from simulations.audits.accounts import books_of, members_of
from simulations.audits.runs import Run

Lanes = NDArray[np.float64]


@dataclass(frozen=True)
class Turn:
    """One site's part in one round. attempt: of the round, which its batches depend on; clip: in force if it adapts."""

    site: int
    round: int
    attempt: int = 0
    clip: float = 0.0


def bench_of(work: Work) -> Workbench:
    """What these sites train with; the engine clips records where noise for single ones lies inside."""
    front, head = parted(model_of(work.job))
    task = work.job.training.task(work.job.data.classes)
    return Workbench(head, task, work.job.training, torch.device("cpu"), OpacusEngine(), front)


def change_of(bench: Workbench, work: Work, records: Records, turn: Turn) -> Lanes:
    """How far the site's training moves the parameters in `bench`, float64 [d]; before it is bounded.

    Noise for single records, where the job asks for it, is repeated from job and turn: it is not that of the run.
    """
    seen, seed = bench.seen(records), work.job.seed
    if work.local is None:
        return train_plainly(bench, seen, batch_draws(seed, turn.site, (turn.round, turn.attempt)))
    plan: MechanismPlan = replace(work.local, noise="replay")
    nominal = plan.sampling_rate * work.manifest.site(turn.site).nominal_records
    sampling, noise = (
        ReplayEntropy(seed, "audit", use, turn.site, turn.round, turn.attempt) for use in ("sampling", "local noise")
    )
    return train_privately(bench, seen, plan, nominal, sampling=sampling, noise=noise, executed=unpaid).value


def given(bench: Workbench, work: Work, records: Records, turn: Turn, start: Flat) -> Lanes:
    """What the site adds to the sum of its round if all start from `start`: its lanes in units of the clip."""
    bench.load(start)
    return bounded(change_of(bench, work, records, turn), work.training, turn.clip).total


def attempts_of(run: Run) -> dict[tuple[str, int], int]:
    """By site and round: the last attempt that the site was charged for, as its ledger says."""
    members, _ = members_of(run)
    found: dict[tuple[str, int], int] = {}
    for account in books_of(run, members).accounts:
        for entry in account.mine:
            if entry.facts is not None and entry.partition == "train":
                place = (account.site, entry.facts.round)
                found[place] = max(found.get(place, 0), entry.facts.attempt)
    return found


def rounds_of(run: Run, work: Work) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """By round, the ids of the sites in each of its sums."""
    ids = {entry.name: entry.id for entry in work.manifest.sites}
    sums = [row.get("groups") or [row["sites"]] for row in run.rounds]
    return tuple(tuple(tuple(ids[name] for name in part) for part in parts) for parts in sums)


def spread(work: Work, sites: int) -> float:
    """Standard deviation of the noise in a sum of so many sites, a lane, in units of the clip."""
    return work.training.sum_deviation * (1.0 if work.training.central else sites**0.5)
