"""The local loop: from the round's parameters and this site's records to what may be released after noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.data import Records
from common.errors import Code, Refusal
from common.learning.batches import Batches, batches
from common.learning.plan import TrainingPlan
from common.learning.tasks import Task
from common.models.front import seen_through
from common.parameters import Flat, assign, flatten
from common.privacy.clipped import Clipped
from common.privacy.clipping.engine import ClipEngine
from common.privacy.mechanism import MechanismPlan


@dataclass(frozen=True)
class Workbench:
    """What a site trains with: the job's model on its device, and how a record is judged.

    model  what learns: the job's model, or its head behind a fixed `front`, through which `seen` shows the records
    """

    model: nn.Module
    task: Task
    plan: TrainingPlan
    device: torch.device
    engine: ClipEngine
    front: nn.Module | None = None
    _seen: WeakKeyDictionary[Records, Records] = field(default_factory=WeakKeyDictionary, repr=False)

    def load(self, parameters: Flat) -> None:
        """Begin from the round's parameters. Errors: Refusal UPDATE_INVALID."""
        assign(self.model, parameters)

    def seen(self, records: Records) -> Records:
        """`records` as `model` takes them; what the front makes of them is kept for as long as they are."""
        if self.front is None:
            return records
        if records not in self._seen:
            inputs = seen_through(self.front, records.inputs, self.device)
            self._seen[records] = replace(records, inputs=inputs)
        return self._seen[records]

    def moved(self, records: Records) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels on the device."""
        return records.inputs.to(self.device), records.labels.to(self.device)


def pick_device(wish: str) -> torch.device:
    """The device of site.toml; "auto" takes CUDA, then MPS, then the processor. Errors: Refusal CONFIG_INVALID."""
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wish != "auto":
        if not here.get(wish, False):
            why = "this torch sees no such device here"
            raise Refusal(Code.CONFIG_INVALID, f"device = {wish!r}", why, 'Choose "auto" or "cpu"')
        return torch.device(wish)
    return torch.device(next(name for name in ("cuda", "mps", "cpu") if here[name]))


def gradient_lanes(bench: Workbench, batch: Records, plan: MechanismPlan) -> Clipped:
    """The sum over records of [gradient clipped to C; lane * min(loss, L) / L; lane * correct].

    The two metric lanes are left out where the plan's `lane_bound` is 0.
    Guarantee: one record adds at most the plan's `record_bound`, sqrt(C^2 + 2 lane^2), in L2 norm.
    """
    inputs, labels = bench.moved(batch)
    clipped = bench.engine.clipped_sum(bench.model, bench.task.losses, inputs, labels, plan.clip)
    if not plan.lane_bound:
        return Clipped(clipped.total, plan.clip)
    usable = clipped.usable.cpu()
    losses = clipped.losses.cpu().double()[usable].clamp(0.0, plan.loss_bound)
    correct = bench.task.correct(clipped.outputs.cpu(), batch.labels).double()[usable] if len(batch) else losses
    metrics = plan.lane_bound * np.array([float(losses.sum()) / plan.loss_bound, float(correct.sum())])
    return Clipped(np.concatenate([clipped.total, metrics]), math.hypot(plan.clip, math.sqrt(2) * plan.lane_bound))


def train_plainly(bench: Workbench, records: Records, draws: np.random.Generator) -> NDArray[np.float64]:
    """The update of `local_steps` steps without privacy: parameters after minus before, float64 [d].

    For federations whose sites allow mode "none". With `proximal` > 0 each step is pulled back to the start
    (FedProx; Li et al. 2020, algorithm 2).
    """
    taken = batches(len(records), bench.plan.batch, bench.plan.local_steps, draws)
    return train_on(bench, *bench.moved(records), taken)


def train_on(bench: Workbench, inputs: torch.Tensor, labels: torch.Tensor, taken: Batches) -> NDArray[np.float64]:
    """`train_plainly` where the batches are drawn already: one step for each of `taken`, row numbers of `inputs`."""
    before = flatten(bench.model)
    start = [p.detach().clone() for p in bench.model.parameters() if p.requires_grad]
    optimizer = bench.plan.optimizer_of(bench.model)
    bench.model.train()
    for batch in taken:
        rows = torch.from_numpy(batch)
        optimizer.zero_grad()
        loss = bench.task.losses(bench.model(inputs[rows]), labels[rows]).mean()
        (loss + bench.plan.proximal * _distance(bench.model, start)).backward()  # type: ignore[no-untyped-call]  # torch
        optimizer.step()
    return flatten(bench.model).astype(np.float64) - before


def _distance(model: nn.Module, start: list[torch.Tensor]) -> torch.Tensor:
    """Half the squared distance from the round's start."""
    parameters = (p for p in model.parameters() if p.requires_grad)
    total = torch.zeros((), device=start[0].device)
    for now, then in zip(parameters, start, strict=True):
        total = total + (now - then).square().sum()
    return total / 2
