"""What is seen of a record whose site is protected as a whole: its update alone, with noise, and in the sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from client.site_level import bounded
from common.data import Records
from common.parameters import flatten
from common.privacy.correlated import column_norm
from common.privacy.noise import normals
from common.randomness import ReplayEntropy
from common.work import Work
from simulations.audits.gradient_inversion import Flat64
from simulations.audits.runs import Run
from simulations.audits.site_updates import Turn, attempts_of, bench_of, change_of, given, rounds_of
from simulations.rebuilt import SiteRecords

METHOD = (
    "The attacker sees the update of a site that holds this one record, at the first model: more than any run shows, "
    "where sites hold many records. Without protection it is the update itself; with the run's protection it is "
    "clipped, and noise as of one turn of the site is added. Where the coordinator adds the noise it sees exact sums: "
    "so the attack is also made on that of the run's first round, in which the record is one of many. {} FAIL: records "
    "are recognised in spite of the protection. Anything else is INCONCLUSIVE, never PASS: that this attack could not "
    "invert is no evidence of differential privacy."
)


class View(NamedTuple):
    """A gradient as an attacker has it, float64 [d]: bare; as released, if there is any protection; in an exact sum."""

    bare: Flat64
    released: Flat64 | None
    summed: Flat64 | None = None


@dataclass(frozen=True, repr=False)
class Targets:
    """The attacked records, the site of each, and what names the randomness of each attack."""

    records: Records
    owners: Sequence[str]
    places: Sequence[tuple[Any, ...]]


def views(run: Run, work: Work, sites: Sequence[SiteRecords], targets: Targets) -> list[View]:
    """What is seen of each record: minus an update points where a gradient does."""
    ids = {entry.name: entry.id for entry in work.manifest.sites}
    summed, found = _summed(run, work, sites), []
    for i, (owner, place) in enumerate(zip(targets.owners, targets.places, strict=True)):
        turn, record = Turn(ids[owner], 1), targets.records.take([i])
        found.append(View(-_alone(_plain(work), record, turn), -_released(work, record, turn, place), summed))
    return found


def told(work: Work) -> str:
    """What the coordinator sees besides, in words; nothing where its view is the users'."""
    if not work.training.central:
        return ""
    more = "the noise for single records" if work.local else "nothing else"
    return f"; the coordinator sees exact sums, in which other records and {more} hide a record from it"


def _plain(work: Work) -> Work:
    """The same work without noise for single records."""
    return replace(work, job=replace(work.job, privacy=replace(work.job.privacy, local=None)))


def _alone(work: Work, record: Records, turn: Turn) -> Flat64:
    return change_of(bench_of(work), work, record, turn)


def _released(work: Work, record: Records, turn: Turn, place: tuple[Any, ...]) -> Flat64:
    """The clipped update with all the noise that one turn is sure to have, also from who sees the rounds after it."""
    plan = work.training
    lanes = bounded(_alone(work, record, turn), plan, plan.clip * plan.adaptive).total[: work.layout.size]
    deviation = plan.sum_deviation * plan.honest**0.5 / column_norm(plan.separation)
    noisy: Flat64 = plan.clip * (lanes + deviation * normals(lanes.size, ReplayEntropy(*place)))
    return noisy


def _summed(run: Run, work: Work, sites: Sequence[SiteRecords]) -> Flat64 | None:
    """Minus the first sum of the run, as its coordinator opened it; None where sites had noise in it."""
    plan, bench, tries = work.training, bench_of(work), attempts_of(run)
    if not plan.central:
        return None
    start, names = flatten(bench.model), {entry.id: entry.name for entry in work.manifest.sites}
    records, total = {site.name: site.train for site in sites}, np.zeros(plan.dimension)
    for site in rounds_of(run, work)[0][0]:
        turn = Turn(site, 1, tries.get((names[site], 1), 0), plan.clip * plan.adaptive)
        total += given(bench, work, records[names[site]], turn, start)
    return -plan.clip * total[: work.layout.size]
