"""What coordinator and sites derive from the same job, each for itself: plans, ring, binding, scale of the sum."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.errors import Code, Refusal
from common.job import Job
from common.metrics import CountShape
from common.models.catalogue import build
from common.orders import Task
from common.parameters import Flat, Layout, layout_of, model_digest
from common.privacy.plan import LIVE_LANES, MechanismPlan, plan_counts, plan_training
from common.privacy.site_plan import plan_local, plan_site
from common.roster import Roster
from common.secagg.codec import IntegerCodec, RangeCodec, Sum
from common.secagg.distributed import DistributedCodec
from common.secagg.manifest import Manifest
from common.secagg.wire import SessionRecord

_BINDING = b"hushfed/binding/v2\0"
_TURN = b"hushfed/turn/v1\0"


class About(Protocol):
    """What a sum is about, as every order for it says: the run by its random id, and the place in it."""

    @property
    def run(self) -> bytes: ...
    @property
    def task(self) -> Task: ...
    @property
    def round(self) -> int: ...
    @property
    def attempt(self) -> int: ...
    @property
    def clip(self) -> float: ...


@dataclass(frozen=True)
class Work:
    """One job in one federation. Equal on every machine, because nothing in it is measured."""

    job: Job
    roster: Roster
    layout: Layout

    @property
    def manifest(self) -> Manifest:
        """The roster as governance signed it. Errors: Refusal E_MANIFEST for a simulated population."""
        if not isinstance(self.roster, Manifest):
            why = "a simulated population signs nothing"
            raise Refusal(Code.E_MANIFEST, "No manifest", why, "Simulate fewer sites, with masks")
        return self.roster

    def spare(self, task: Task) -> int:
        """Attempts of a task that may fail within the budget; of evaluation one, as each blurs all others."""
        spare = self.job.rounds if self.job.privacy.spare_rounds is None else self.job.privacy.spare_rounds
        return spare if task == "train" else min(spare, 1)

    @cached_property
    def sum_min(self) -> int:
        """Reports that every opened sum is sure to hold, also if the coordinator lies: so many share the noise."""
        return sum_min(self.job, self.roster)

    @cached_property
    def sum_max(self) -> int:
        """Reports that a sum holds at most: of all sites, or of the cohort that a round asks."""
        most = self.job.aggregation.cohort or self.roster.rules.sites_max
        return min(most, len(self.roster.ids))

    @cached_property
    def training(self) -> MechanismPlan:
        """The mechanism of a training release."""
        if self.job.privacy.by_site:
            return plan_site(
                self.job.privacy,
                rounds=self.job.rounds,
                dimension=self.layout.size,
                quorum=self.sum_min,
                sites=self.sum_max,
                population=len(self.roster.ids),
                bits=self.job.aggregation.bits,
            )
        return plan_training(
            self.job.privacy,
            rounds=self.job.rounds,
            local_steps=self.job.training.local_steps,
            dimension=self.layout.size,
            quorum=self.sum_min,
            sites=self.sum_max,
            records=self.roster.all_records,
            summed=min(self.roster.all_records, self.sum_max * self.roster.most_records),
        )

    @cached_property
    def counting(self) -> MechanismPlan:
        """The mechanism of a release of counts."""
        return plan_counts(
            self.job.privacy,
            cells=count_shape(self.job).lanes,
            releases=len(self.job.evaluation_rounds) + self.spare("evaluate"),
            quorum=self.sum_min,
        )

    def plan(self, task: Task) -> MechanismPlan:
        """The mechanism of a task's release."""
        return self.training if task == "train" else self.counting

    @cached_property
    def local(self) -> MechanismPlan | None:
        """The mechanism for single records inside that of the whole site, where the job asks for it."""
        local = self.job.privacy.local
        if local is None:
            return None
        return plan_local(
            local,
            delta=self.training.delta,
            noise=self.job.privacy.noise,
            local_steps=self.job.training.local_steps,
            releases=self.training.releases,
            dimension=self.layout.size,
            records=self.roster.all_records,
        )

    def plans(self, task: Task) -> tuple[MechanismPlan, ...]:
        """Every mechanism that a task's release is charged for, the innermost first."""
        inner = (self.local,) if task == "train" and self.local else ()
        return (*inner, self.plan(task))

    def codec(self, task: Task) -> IntegerCodec | RangeCodec | DistributedCodec:
        """How a task's release is written into the ring."""
        sites = self.roster.rules.sites_max
        if task == "evaluate":
            return IntegerCodec(dimension=count_shape(self.job).lanes, sites_max=sites)
        if self.training.bits:
            return turned_codec(self.training, sites)
        if self.training.integers:
            return IntegerCodec(dimension=self.training.dimension, sites_max=sites)
        bits, bound = self.job.aggregation.bits, self.job.aggregation.bound
        if bits is None or bound is None:
            raise Refusal(
                Code.CONFIG_INVALID, "No codec", "the job gives no aggregation.bits or no bound", "Give both in the job"
            )
        cap = float(self.roster.most_records)
        return RangeCodec(dimension=self.layout.size, bits=bits, sites_max=sites, bound=bound, weight_cap=cap)

    def turn(self, round_number: int) -> bytes:
        """The public seed of a round's rotation, where updates are rotated. No guarantee rests on it."""
        return hashlib.sha256(_TURN + self.job.digest() + struct.pack("<Q", round_number)).digest()

    def nominal_of(self, sites: tuple[int, ...]) -> int:
        """Public nominal number of records of these sites."""
        return sum(self.roster.site(site).nominal_records for site in sites)

    def groups(self, task: Task) -> int:
        """Sums of one attempt: counts need no voting, and one sum has the least noise."""
        return self.job.aggregation.groups if task == "train" else 1

    def group_of(self, session: SessionRecord, number: int) -> int:
        """Which group of its attempt a number of a session is for, from 0 on."""
        return (number - session.first) % self.job.aggregation.groups

    def binding(self, about: About, parameters: Flat, group: int = 0) -> bytes:
        """h_model: the digest that every report of one sum is bound to, so that no site saw another model.

        It names the run, so that a job that runs again asks for new sums and not for those of its first run.
        """
        numbers = (about.round, about.attempt, group, about.clip)
        place = struct.pack("<16s8sQQQd", about.run, about.task.encode(), *numbers)
        return hashlib.sha256(_BINDING + self.job.digest() + place + model_digest(self.layout, parameters)).digest()


def turned_codec(plan: MechanismPlan, sites_max: int) -> DistributedCodec:
    """The codec of a plan with a ring of its own, in units of the clip. Errors: Refusal E_RANGE."""
    return DistributedCodec(
        dimension=plan.dimension,
        bits=plan.bits,
        sites_max=sites_max,
        clip=plan.record_bound,
        metrics=0,
        metric_share=0.0,
        scale=plan.scale,
        noise="skellam" if plan.mechanism == "skellam" else "discrete-gaussian",
        sigma=plan.sigma,
    )


def work_of(job: Job, roster: Roster) -> Work:
    """The work of `job`. Errors: Refusal CONFIG_INVALID, JOB_INVALID."""
    return Work(job, roster, layout_of(model_of(job)))


def sum_min(job: Job, roster: Roster) -> int:
    """`Work.sum_min` of a job: its quorum; less where its sites mask for some of the unmasking sites only."""
    return roster.smallest_sum(job.aggregation.quorum, int(job.privacy.colluding or 0))


def model_of(job: Job) -> nn.Module:
    """The job's model with the initial weights that its seed gives. Errors: Refusal CONFIG_INVALID."""
    return build(job.model.name, inputs=job.data.shape, classes=job.data.classes, seed=job.seed, **job.model.settings)


def count_shape(job: Job) -> CountShape:
    """Cells of the job's counts."""
    return CountShape(groups=len(job.data.groups), classes=job.data.classes, bins=job.evaluation.bins)


def whole_run(work: Work) -> list[tuple[MechanismPlan, int]]:
    """Every plan of the job with the steps that all its rounds and evaluations take if no attempt fails."""
    turns = -(-work.job.rounds // max(work.training.separation, 1))
    counts = len(work.job.evaluation_rounds)
    training = [(plan, plan.steps * turns) for plan in work.plans("train")]
    return [*training, (work.counting, work.counting.steps * counts)]


def counts_noise_sd(work: Work, sites: int) -> float:
    """Standard deviation of the noise in one cell of a sum over so many sites; 0 where counts are exact."""
    return work.counting.sum_deviation * math.sqrt(sites)


def update_of(work: Work, opened: Sum, sites: tuple[int, ...]) -> NDArray[np.float64]:
    """The mean update of these sites, float64 [d], in the units of the model.

    Mode M2: minus learning rate times the noisy sum of clipped gradients over the public nominal batch.
    M1 and "none": the mean of the sites' updates, weighted by public nominal sizes. `site_updates` is for the others.
    """
    codec = work.codec("train")
    if isinstance(codec, RangeCodec):
        return codec.mean(opened)
    gradients = opened.values[: work.layout.size] / work.training.scale
    return -work.job.training.learning_rate * gradients / nominal_batch(work, sites)


def metrics_of(work: Work, opened: Sum, sites: tuple[int, ...]) -> tuple[float | None, float | None]:
    """Noisy mean loss and accuracy on the training batch, or None where the job sends none."""
    plan = work.training
    if work.job.privacy.mode != "M2" or not plan.lane_bound:
        return None, None
    lanes = opened.values[-LIVE_LANES:] / (plan.scale * plan.lane_bound * nominal_batch(work, sites))
    return float(max(0.0, lanes[0] * plan.loss_bound)), float(np.clip(lanes[1], 0.0, 1.0))


def nominal_batch(work: Work, sites: tuple[int, ...]) -> float:
    """Public expected number of records in one step of these sites together."""
    return (work.job.privacy.sampling_rate or 1.0) * work.nominal_of(sites)
