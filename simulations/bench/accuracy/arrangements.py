"""Two ways to train privately on the same records: in one place, and at sites whose noise adds up in secure sums."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.craft import unpaid
from client.guard import Guard
from client.limits import Limit
from client.private_step import train_privately
from client.trainer import Workbench, gradient_lanes
from common.data import Records
from common.identity import Signer
from common.learning.plan import TrainingPlan
from common.parameters import assign, flatten
from common.privacy.clipping.engine import ClipEngine
from common.privacy.entries import Facts
from common.privacy.ledger import Owner, open_ledger
from common.privacy.plan import MechanismPlan, PrivacySettings, plan_training
from common.privacy.sampler import poisson
from common.privacy.settings import Mode
from common.randomness import SystemEntropy
from common.secagg.codec import IntegerCodec
from common.secagg.masks import reduce
from server.strategies.steps import momentum
from simulations.bench.accuracy.studies import DELTA, KEEP, Study
from simulations.partitioners import Partition, partition


@dataclass(frozen=True)
class Task:
    """One run of a study: its model before training and the records it may learn from.

    sites  1: all records in one place
    seed   of the public choices: initial weights, who holds which record. Never of the noise
    """

    study: Study
    head: nn.Module
    engine: ClipEngine
    records: Records
    sites: int
    seed: int

    @property
    def rate(self) -> float:
        """Chance of each record to be in a step."""
        return self.study.batch / len(self.records)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return round(self.study.epochs / self.rate)

    @property
    def bench(self) -> Workbench:
        """What steps are taken with."""
        plan = TrainingPlan(
            learning_rate=self.study.rate,
            optimizer="momentum",
            optimizer_settings={"momentum": KEEP},
            local_steps=self.steps if self.sites == 1 else 1,
        )
        return Workbench(self.head, plan.task(10), plan, torch.device("cpu"), self.engine)

    def plan(self) -> MechanismPlan:
        """The mechanism with the least noise that keeps epsilon: mode M1 in one place, mode M2 at several sites.

        At several sites all of them report in every round, and the noise of one of them is not counted on.
        """
        mode: Mode = "M1" if self.sites == 1 else "M2"
        settings = PrivacySettings(
            mode=mode,
            unit="record",
            epsilon=self.study.epsilon,
            delta=DELTA,
            clip=self.study.clip,
            sampling_rate=self.rate,
            spare_rounds=0,
            evaluation_epsilon=self.study.epsilon,  # never spent: other records are tested on
            colluding=None if self.sites == 1 else 1,
            metric_share=None if self.sites == 1 else 0.0,
        )
        return plan_training(
            settings,
            rounds=1 if self.sites == 1 else self.steps,
            local_steps=self.steps if self.sites == 1 else 1,
            dimension=len(flatten(self.head)),
            quorum=self.sites,
            sites=self.sites,
            records=len(self.records),
        )


def train(task: Task, plan: MechanismPlan) -> None:
    """Train `task.head` under `plan`."""
    if task.sites == 1:
        batch = plan.sampling_rate * len(task.records)
        train_privately(
            task.bench, task.records, plan, batch, sampling=SystemEntropy(), noise=SystemEntropy(), executed=unpaid
        )
    else:
        _train_together(task, plan)


def _train_together(task: Task, plan: MechanismPlan) -> None:
    """Rounds of one gradient each: clipped, scaled and noised by the guard of every site, added up in the ring.

    The masks of secure aggregation, which cancel in the sum, are left out, and so is transport.
    """
    dealt = partition(Partition(kind="even", sites=task.sites), task.records.labels.numpy(), task.seed)
    parts = [task.records.take(rows) for rows in dealt]
    codec = IntegerCodec(dimension=plan.dimension, sites_max=task.sites)
    bench, step = task.bench, momentum(1.0, KEEP)
    memory = step.init(plan.dimension)
    parameters = flatten(task.head).astype(np.float64)
    batch = plan.sampling_rate * len(task.records)
    with _guards(task.sites, plan) as guards:
        for number in range(1, plan.releases + 1):
            bench.load(parameters.astype(np.float32))
            total = codec.ring.zeros()
            for guard, records in zip(guards, parts, strict=True):
                total += codec.encode(_report(guard, bench, records, plan, number)).lanes
            opened = codec.open_sum(reduce(codec.ring, total), task.sites)
            update = -task.study.rate * (opened.values / plan.scale) / batch
            memory, change = step.apply(memory, update)
            parameters += change
    assign(task.head, parameters.astype(np.float32))


def _report(guard: Guard, bench: Workbench, records: Records, plan: MechanismPlan, number: int) -> NDArray[np.int64]:
    """The noisy integers of one site in one round, paid for in its ledger."""
    reservation = guard.reserve(plan, Facts(round=number))
    batch = records.take(poisson(len(records), plan.sampling_rate, SystemEntropy()))
    release = guard.release_sum(reservation, gradient_lanes(bench, batch, plan), SystemEntropy())
    return release.lanes.astype(np.int64, copy=False)


@contextmanager
def _guards(sites: int, plan: MechanismPlan) -> Iterator[list[Guard]]:
    """A guard for each site, with a ledger of its own and the limit that the plan affords."""
    limit = Limit(plan.epsilon, plan.delta)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths = [Path(folder) / f"{site}.sqlite" for site in range(1, sites + 1)]
        owners = [Owner(site, "00" * 16) for site in range(1, sites + 1)]
        ledgers = [open_ledger(path, owner, Signer.generate()) for path, owner in zip(paths, owners, strict=True)]
        for ledger in ledgers:
            stack.callback(ledger.close)
        yield [Guard(ledger, limit) for ledger in ledgers]
