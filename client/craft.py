"""What a site computes on its records for one attempt, by seeds and streams of its own; and who may compute it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from client.trainer import Workbench, gradient_lanes, train_plainly
from common.data import Records
from common.orders import Task
from common.privacy.clipped import Clipped, PrivateUpdate
from common.privacy.mechanism import MechanismPlan
from common.privacy.sampler import poisson
from common.randomness import Entropy, NoiseKind, child_numpy, noise_source
from common.secagg.codec import Encoded

Executed = Callable[[int], None]  # hears before each step's records and noise are drawn how many steps there were


def unpaid(steps: int) -> None:
    """`Executed` where no ledger pays for steps one by one: nothing of them leaves, or their charge stands whole."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One attempt at one site: whatever its arithmetic depends on beside model, records and plan.

    seed        of the job                        noise  kind of its noise
    noise_seed  of the site, for noise "replay"   nominal_records  of the site, public
    """

    site: int
    task: Task
    round: int
    attempt: int
    seed: int
    noise: NoiseKind
    noise_seed: int | None
    nominal_records: int

    def entropy(self, use: str) -> Entropy:
        """System entropy; or, where job, policy and site.toml all say so, a stream that can be repeated."""
        return noise_source(self.noise, self.noise_seed or 0, use, self.task, self.round, self.attempt)

    def draws(self) -> np.random.Generator:
        """Who is in which batch, where that hides nobody."""
        return batch_draws(self.seed, self.site, (self.round, self.attempt))


def batch_draws(seed: int, site: int, place: tuple[int, int]) -> np.random.Generator:
    """The stream of a site's batches without noise. seed: of the job; place: round and attempt."""
    return child_numpy(seed, "batches", site, *place)


class Craft(Protocol):
    """How a site's updates are computed: each at its turn, or by a simulation for many sites at once."""

    def gradients(self, bench: Workbench, train: Records, plan: MechanismPlan, given: Assignment) -> Clipped:
        """Mode M2: the clipped sum over one Poisson sample."""

    def privately(
        self, bench: Workbench, train: Records, plan: MechanismPlan, given: Assignment, executed: Executed
    ) -> PrivateUpdate:
        """Local steps with noise for single records; `executed` is told before each how many there were."""

    def plainly(self, bench: Workbench, train: Records, given: Assignment) -> NDArray[np.float64]:
        """Local steps without noise, float64 [d]."""

    def sent(self, encoded: Encoded, given: Assignment) -> Encoded:
        """What is masked and sent: a site's release as it is, where no simulation plays a site that lies."""


class OwnCraft:
    """`Craft` of a real site: on its own machine, from its own records, when it is asked."""

    def gradients(self, bench: Workbench, train: Records, plan: MechanismPlan, given: Assignment) -> Clipped:
        """See `Craft`."""
        batch = train.take(poisson(len(train), plan.sampling_rate, given.entropy("sampling")))
        return gradient_lanes(bench, batch, plan)

    def privately(
        self, bench: Workbench, train: Records, plan: MechanismPlan, given: Assignment, executed: Executed
    ) -> PrivateUpdate:
        """See `Craft`."""
        from client.private_step import train_privately

        batch, noise = plan.sampling_rate * given.nominal_records, given.entropy("local noise")
        drawn = {"sampling": given.entropy("sampling"), "noise": noise}
        return train_privately(bench, train, plan, batch, **drawn, executed=executed)

    def plainly(self, bench: Workbench, train: Records, given: Assignment) -> NDArray[np.float64]:
        """See `Craft`."""
        return train_plainly(bench, train, given.draws())

    def sent(self, encoded: Encoded, given: Assignment) -> Encoded:
        """See `Craft`."""
        return encoded
