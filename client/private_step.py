"""Mode M1: local steps of which each is sampled, clipped and noised before the optimizer sees it."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer

from client.craft import Executed
from client.trainer import Workbench
from common.config import finite
from common.data import Records
from common.errors import Code, Refusal
from common.parameters import flatten
from common.privacy.clipped import PrivateUpdate
from common.privacy.mechanism import MechanismPlan
from common.privacy.noise import normals
from common.privacy.sampler import poisson
from common.randomness import Entropy


class EntropyOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus has no types
    """Opacus' optimizer with noise from a stream of ours: torch's global generator, seeded or not, takes no part."""

    def __init__(self, optimizer: torch.optim.Optimizer, plan: MechanismPlan, batch: float, entropy: Entropy):
        super().__init__(
            optimizer, noise_multiplier=plan.noise_multiplier, max_grad_norm=plan.clip, expected_batch_size=1
        )
        self._deviation, self._batch, self._entropy = plan.sigma, batch, entropy

    def take(self, total: NDArray[np.float64], pull: NDArray[np.float64] | None = None) -> None:
        """One step from the clipped sum `total`, float64 [d], which may be of an empty batch.

        pull  added to the noisy mean; depends on nothing private
        """
        noisy = normals(total.size, self._entropy)
        noisy *= self._deviation
        noisy += total
        noisy /= self._batch
        if pull is not None:
            noisy += pull
        start = 0
        for parameter in self.params:
            part = torch.from_numpy(noisy[start : start + parameter.numel()])
            parameter.grad = part.to(parameter).view_as(parameter)
            start += parameter.numel()
        self.original_optimizer.step()
        self.original_optimizer.zero_grad()


def train_privately(
    bench: Workbench,
    records: Records,
    plan: MechanismPlan,
    batch: float,
    *,
    sampling: Entropy,
    noise: Entropy,
    executed: Executed,
) -> PrivateUpdate:
    """The update of `plan.steps` private steps over `records`, beginning from the parameters in `bench`.

    batch     public nominal number of records in a step, by which every noisy sum is divided; never the real one
    sampling  who is in a step      noise  what hides them; both of the kind that `plan` names
    executed  is told before each step how many there were, so that a ledger can say it first; `unpaid` where none pays
    Guarantee: one record moves each step's sum by at most `plan.clip`; an empty batch is a step of noise alone, and
    a record whose loss or gradient is not finite adds nothing. With `proximal` > 0 each step is pulled back to the
    start, which reads no record.
    Errors: Refusal POLICY_RELEASE for a plan or entropy of another kind, UPDATE_INVALID if training diverged.
    Source: Abadi et al. 2016, algorithm 1; with "adam" the local optimizer is DP-Adam.
    """
    _refuse_unfit(plan, sampling, noise)
    finite(batch, "nominal batch", above=0)
    start = flatten(bench.model).astype(np.float64)
    optimizer = EntropyOptimizer(bench.plan.optimizer_of(bench.model), plan, batch, noise)
    for step in range(plan.steps):
        executed(step)
        rows = poisson(len(records), plan.sampling_rate, sampling)
        inputs, labels = bench.moved(records.take(rows))
        clipped = bench.engine.clipped_sum(bench.model, bench.task.losses, inputs, labels, plan.clip)
        pull = bench.plan.proximal * (flatten(bench.model) - start) if bench.plan.proximal else None
        optimizer.take(clipped.total, pull)
    change = flatten(bench.model) - start
    if not np.isfinite(change).all():
        raise Refusal(
            Code.UPDATE_INVALID, "Update not released", "training diverged", "Lower the learning rate of the job"
        )
    return PrivateUpdate(change, plan.plan_id, plan.steps)


def _refuse_unfit(plan: MechanismPlan, sampling: Entropy, noise: Entropy) -> None:
    fits = plan.mode == "M1" and plan.purpose == "train" and plan.honest == 1 and math.isfinite(plan.sigma)
    if not fits or plan.sigma <= 0 or {sampling.kind, noise.kind} != {plan.noise}:
        raise Refusal(
            Code.POLICY_RELEASE,
            "Private training refused",
            "plan and entropy are not those of local private steps",
            "Report this: the session mixed two mechanisms",
        )
