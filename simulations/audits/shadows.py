"""Shadow models: the training of a run repeated on other draws of its records, with its mechanism and its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from client.craft import unpaid
from client.private_step import train_privately
from client.trainer import Workbench, gradient_lanes, train_plainly
from common.data import Records
from common.parameters import flatten
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.mechanism import MechanismPlan
from common.privacy.noise import normals
from common.privacy.sampler import poisson
from common.randomness import ReplayEntropy, child_numpy
from common.work import Work, model_of, nominal_batch
from server.strategies.catalogue import strategy
from simulations.audits.runs import Run
from simulations.baselines import union

Place = tuple[int, ...]  # seed, number of the model, round, group, site: what a stream of randomness belongs to


@dataclass(frozen=True)
class Course:
    """How the attacked run trained: its work, and by round the ids of the sites in each of its sums."""

    work: Work
    rounds: tuple[tuple[tuple[int, ...], ...], ...]


def course_of(run: Run, work: Work) -> Course:
    """The course of a run, as its record tells it."""
    ids = {entry.name: entry.id for entry in work.manifest.sites}
    sums = [row.get("groups") or [row["sites"]] for row in run.rounds]
    return Course(work, tuple(tuple(tuple(ids[name] for name in part) for part in parts) for parts in sums))


def shadow(course: Course, records: Sequence[Records], place: Place) -> Workbench:
    """One more model of the same course, on `records` of each site in the manifest's order.

    Everything is as in the run but for the masks: sums are added in the clear, and mode M2 has normal noise of the
    same deviation where the run has discrete. `place` fixes all of it.
    """
    work = course.work
    task, model = work.job.training.task(work.job.data.classes), model_of(work.job)
    bench = Workbench(model, task, work.job.training, torch.device("cpu"), OpacusEngine())
    chosen = strategy(work.job.aggregation.strategy, **work.job.aggregation.settings)
    parameters, own = flatten(model), dict(zip(work.manifest.ids, records, strict=True))
    memory = chosen.init(parameters.size)
    for turn, parts in enumerate(course.rounds):
        updates = []
        for group, sites in enumerate(parts):
            bench.load(parameters)
            updates.append(_update(bench, work, {site: own[site] for site in sites}, (*place, turn, group)))
        memory, change = chosen.apply(memory, np.stack(updates))
        parameters = (parameters.astype(np.float64) + change).astype(np.float32)
    bench.load(parameters)
    return bench


def _update(bench: Workbench, work: Work, own: dict[int, Records], place: Place) -> NDArray[np.float64]:
    """The mean update of these sites, from the parameters in the bench."""
    plan = replace(work.training, noise="replay")
    if plan.mode == "M2":
        return _summed(bench, work, own, place)
    start, updates = flatten(bench.model), []
    for site, records in own.items():
        bench.load(start)
        updates.append(_local(bench, work, plan, records, (*place, site)))
    weights = [float(work.manifest.site(site).nominal_records) for site in own]
    mean: NDArray[np.float64] = np.average(np.stack(updates), axis=0, weights=weights)
    return mean


def _summed(bench: Workbench, work: Work, own: dict[int, Records], place: Place) -> NDArray[np.float64]:
    """Mode M2: one gradient of all sites together."""
    everybody, plan = union(list(own.values())), work.training
    batch = everybody.take(poisson(len(everybody), plan.sampling_rate, _stream(place, "sampling")))
    total = gradient_lanes(bench, batch, plan).total[: work.layout.size]
    noisy = total + plan.sum_deviation * len(own) ** 0.5 * normals(total.size, _stream(place, "noise"))
    update: NDArray[np.float64] = -work.job.training.learning_rate * noisy / nominal_batch(work, tuple(own))
    return update


def _local(bench: Workbench, work: Work, plan: MechanismPlan, records: Records, place: Place) -> NDArray[np.float64]:
    """Mode M1, or no privacy: the update of one site's local steps. The last number of `place` is the site."""
    bound = work.job.aggregation.bound or np.inf
    if plan.mechanism == "none":
        return train_plainly(bench, records, child_numpy(place[0], "shadow", *place[1:])).clip(-bound, bound)
    nominal = plan.sampling_rate * work.manifest.site(place[-1]).nominal_records
    sampling, noise = _stream(place, "sampling"), _stream(place, "noise")
    update = train_privately(bench, records, plan, nominal, sampling=sampling, noise=noise, executed=unpaid)
    held: NDArray[np.float64] = np.clip(update.value, -bound, bound)
    return held


def _stream(place: Place, use: str) -> ReplayEntropy:
    return ReplayEntropy(place[0], "shadow", *place[1:], use)
