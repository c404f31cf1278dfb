"""What the models of a run say of every canary: an attacker who saw all rounds and knows all other records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.data import Records
from common.errors import Code, Refusal
from common.learning.tasks import Task
from common.parameters import Flat, assign
from common.work import Work, model_of
from simulations.audits.games import Coins, Scores
from simulations.audits.gradients import gradients, losses_of
from simulations.audits.runs import Run
from simulations.baselines import union
from simulations.rebuilt import SiteRecords

MOST_NUMBERS = 1 << 28  # canaries times parameters
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Evidence:
    """What an attacker of a run has: its models, and the world without the coins.

    models  before the first round and after each
    """

    run: Run
    work: Work
    sites: Sequence[SiteRecords]
    models: Sequence[Flat]

    @property
    def canaries(self) -> Records:
        """All canaries, site after site."""
        return union([site.canaries for site in self.sites])

    @property
    def members(self) -> Coins:
        """Which of them were in."""
        return np.concatenate([site.members for site in self.sites])

    @property
    def owners(self) -> NDArray[np.str_]:
        """The site of each canary."""
        return np.concatenate([np.full(site.members.size, site.name) for site in self.sites])


@dataclass(frozen=True)
class Seen:
    """Scores of all canaries, larger where they seem to have been in.

    noisy  from what was released      bare  from what the same steps give if no noise is added
    """

    noisy: Scores
    bare: Scores


def by_loss(evidence: Evidence) -> Scores:
    """A canary was in if the released model has a small loss on it."""
    task, model = _ready(evidence.work, evidence.models[-1])
    return -losses_of(model, task.losses, evidence.canaries)


def by_rounds(evidence: Evidence, stream: np.random.Generator) -> Seen:
    """A canary was in if the steps of the model between rounds point along its gradients.

    Each round's step, in gradients, is what all others contribute, the unknown coins times the canaries' own clipped
    gradients, and noise of known size. The score is the linear estimate of all coins together with the least squared
    error: the white-box attack of Steinke et al. 2023, but with the overlaps of canaries taken out.
    stream  of the sampling that the estimate without noise repeats
    Errors: Refusal JOB_INVALID for a model and canaries that do not fit the memory.
    """
    work, canaries = evidence.work, evidence.canaries
    if len(canaries) * work.layout.size > MOST_NUMBERS:
        raise Refusal(
            Code.JOB_INVALID, "Canaries not scored", "their gradients do not fit the memory", "Plant fewer canaries"
        )
    gram = np.zeros((len(canaries), len(canaries)))
    noisy, bare = np.zeros(len(canaries)), np.zeros(len(canaries))
    spread = np.zeros(2)
    for number in range(len(evidence.models) - 1):
        seen = _round(evidence, number, stream)
        gram += (seen.own @ seen.own.T).astype(np.float64)
        noisy += seen.own @ seen.released
        bare += seen.own @ seen.silent
        spread += seen.spread
    prior = 4.0 * np.eye(len(canaries))  # a coin less one half has the variance 1/4
    noise, sampling = spread / max(1, len(evidence.models) - 1)
    quiet = sampling or 1e-9
    return Seen(
        np.linalg.solve(gram / (noise + sampling) + prior, noisy / (noise + sampling)).astype(np.float64),
        np.linalg.solve(gram / quiet + prior, bare / quiet).astype(np.float64),
    )


@dataclass(frozen=True)
class _Round:
    """One round in units of gradients.

    own               what each canary adds on average if it is in, [m, d]
    released, silent  what of the step the known records do not explain: as it was, and without noise, [d]
    spread            variance a coordinate of the privacy noise, and of the sampling
    """

    own: Rows
    released: NDArray[np.float64]
    silent: NDArray[np.float64]
    spread: NDArray[np.float64]


def _round(evidence: Evidence, number: int, stream: np.random.Generator) -> _Round:
    work, plan, training = evidence.work, evidence.work.training, evidence.work.job.training
    present = [site for site in evidence.sites if site.name in evidence.run.rounds[number]["sites"]]
    ids = [entry.id for entry in work.manifest.sites if entry.name in {site.name for site in present}]
    steps, rate = plan.steps, plan.sampling_rate
    task, model = _ready(work, evidence.models[number])
    here = np.isin(evidence.owners, [site.name for site in present])
    single = gradients(model, task.losses, evidence.canaries, plan.clip) * here[:, None].astype(np.float32)
    own = (steps * rate * single).astype(np.float32)
    others = gradients(model, task.losses, union([site.real for site in present]), plan.clip)
    moved = evidence.models[number].astype(np.float64) - evidence.models[number + 1]
    known = steps * rate * others.sum(0, dtype=np.float64) + own.sum(0, dtype=np.float64) / 2
    whole = moved * (rate * work.nominal_of(tuple(ids))) / training.learning_rate
    drawn = stream.binomial(steps, rate, len(others)) @ others
    drawn = drawn + (stream.binomial(steps, rate, len(single)) * evidence.members) @ single
    energy = float((others.astype(np.float64) ** 2).sum() + (single.astype(np.float64) ** 2).sum() / 2)
    summed = plan.sum_deviation**2 * len(present) * (1 if plan.mode == "M2" else steps)
    sampling = steps * rate * (1 - rate) * energy / work.layout.size
    return _Round(own, _beyond(whole, known), drawn - known, np.array([summed, sampling]))


def _beyond(step: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """`step` without its part along what is known: also where the server's optimizer scales steps in its own way."""
    square = float(known @ known)
    return step - (float(step @ known) / square) * known if square else step


def _ready(work: Work, parameters: Flat) -> tuple[Task, nn.Module]:
    model = model_of(work.job)
    assign(model, parameters)
    return work.job.training.task(work.job.data.classes), model
