"""What the models of a run say of every canary site: an attacker who saw all rounds and knows all other records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.parameters import Flat, assign
from common.work import Work, model_of
from simulations.audits.canary_scores import MOST_NUMBERS
from simulations.audits.games import Coins, Scores
from simulations.audits.gradients import losses_of
from simulations.audits.runs import Run, figure
from simulations.audits.site_games import whitened
from simulations.audits.site_updates import Lanes, Turn, attempts_of, bench_of, given, rounds_of, spread
from simulations.rebuilt import SiteRecords

QUIET = 1e-9  # variance, in clips, that stands for none
SUSPECTED = 0.05  # share of the noise that an attacker hopes for who looks for a mechanism that is broken


@dataclass(frozen=True)
class SiteEvidence:
    """What an attacker of a run with canary sites has: its models, and the world without the coins.

    models  before the first round and after each, or the last one alone
    """

    run: Run
    work: Work
    sites: Sequence[SiteRecords]
    models: Sequence[Flat]

    @property
    def canaries(self) -> list[SiteRecords]:
        """The sites that were made up."""
        return [site for site in self.sites if len(site.canaries)]

    @property
    def members(self) -> Coins:
        """Which of them were in."""
        return np.array([bool(site.members.all()) for site in self.canaries], bool)

    @cached_property
    def attempts(self) -> dict[tuple[str, int], int]:
        """See `attempts_of`."""
        return attempts_of(self.run)


@dataclass(frozen=True)
class Steps:
    """Scores of all canary sites, larger where they seem to have been in.

    noisy  from what was released, by who counts on all of the noise      hopeful  by who counts on little of it
    bare   from what the same steps give if no noise is added
    """

    noisy: Scores
    hopeful: Scores
    bare: Scores


def by_site_loss(evidence: SiteEvidence) -> Scores:
    """A canary site was in if the released model has a small mean loss on its records."""
    job, model = evidence.work.job, model_of(evidence.work.job)
    assign(model, evidence.models[-1])
    losses = job.training.task(job.data.classes).losses
    return np.array([-losses_of(model, losses, site.canaries).mean() for site in evidence.canaries])


def by_site_rounds(evidence: SiteEvidence) -> Steps:
    """A canary site was in if the steps between rounds point along the updates that it would have given.

    What each round's sum holds beside the known sites is the updates of the canary sites that were in, and noise of
    known size; in M5 rounds are combined so that the noise is independent. The score is the linear estimate of all
    coins together with the least squared error. That takes overlaps of sites out only as far as the noise allows.
    Errors: Refusal JOB_INVALID for a model and canary sites that do not fit the memory.
    """
    canaries, work = evidence.canaries, evidence.work
    band = work.training.separation
    if len(canaries) * work.layout.size * max(2, band) > MOST_NUMBERS:
        why = "their updates do not fit the memory"
        raise Refusal(Code.JOB_INVALID, "Canary sites not scored", why, "Plant fewer")
    gram, noisy, bare = np.zeros((len(canaries), len(canaries))), np.zeros(len(canaries)), np.zeros(len(canaries))
    seen: list[_Round] = []
    for number in range(len(evidence.models) - 1):
        seen = [*seen, _round(evidence, number)][-max(1, band) :]  # older rounds do not reach into this one
        own = whitened([one.own for one in seen], band)[-1]
        gram += own @ own.T / seen[-1].variance
        noisy += own @ whitened([one.released for one in seen], band)[-1] / seen[-1].variance
        bare += own @ whitened([one.silent for one in seen], band)[-1] / QUIET
    prior = 4.0 * np.eye(len(canaries))  # a coin less one half has the variance 1/4
    less, quiet = SUSPECTED**-2, seen[-1].variance / QUIET
    return Steps(
        noisy=_solved(gram + prior, noisy),
        hopeful=_solved(less * gram + prior, less * noisy),
        bare=_solved(quiet * gram + prior, bare),
    )


def _solved(matrix: NDArray[np.float64], vector: Scores) -> Scores:
    return np.linalg.solve(matrix, vector).astype(np.float64)


@dataclass(frozen=True)
class _Round:
    """One round, in units of the clip and of the sum of its sites.

    own               what each canary site adds if it is in, [m, d]; zeros where it was not asked
    released, silent  what of the sum the known sites and half the canary sites do not explain: as it was, and had no
                      noise been added, [d]
    variance          of the noise, a coordinate
    """

    own: NDArray[np.float64]
    released: Lanes
    silent: Lanes
    variance: float


def _round(evidence: SiteEvidence, number: int) -> _Round:
    work, start = evidence.work, evidence.models[number]
    parts = rounds_of(evidence.run, work)[number]
    ids = {entry.name: entry.id for entry in work.manifest.sites}
    present = {site for part in parts for site in part}
    tries, bench, size = evidence.attempts, bench_of(work), work.layout.size

    def of(site: SiteRecords) -> Lanes:
        if ids[site.name] not in present:
            return np.zeros(size)
        turn = Turn(ids[site.name], number + 1, tries.get((site.name, number + 1), 0))
        records = site.canaries if len(site.canaries) else site.train
        return given(bench, work, records, turn, start)[:size]

    own = np.stack([of(site) for site in evidence.canaries])
    known = sum((of(site) for site in evidence.sites if not len(site.canaries)), np.zeros(size))
    moved = evidence.models[number + 1].astype(np.float64) - start
    half = own.sum(0) / 2
    released = _summed(moved, known + half, work, len(present)) - known - half
    return _Round(own, released, evidence.members @ own - half, spread(work, len(present)) ** 2)


def _summed(moved: Lanes, expected: Lanes, work: Work, sites: int) -> Lanes:
    """The sum that moved the model so: by the rate of a server that descends; else by the scale that fits best."""
    if work.job.aggregation.strategy in ("fedavg", "fedprox"):
        rate = figure(work.job.aggregation.settings.get("rate", 1.0))
        return moved * (sites / (rate * work.training.clip))
    along = float(moved @ expected)
    return moved * (float(expected @ expected) / along) if along else moved
