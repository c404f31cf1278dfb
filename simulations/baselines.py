"""What the same model reaches without federation or privacy: on all records together, and at each site alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from common.data import Records
from common.learning.tasks import Task
from common.models.front import parted, seen_through

Build = Callable[[], nn.Module]  # a fresh model with the job's initial weights

STEPS = 300
RATE = 0.05


@dataclass(frozen=True)
class Baselines:
    """Accuracies on the union of all held-out records; None where there are none.

    pooled  one model trained on the training records of all sites      alone  one model per site, on its own records
    """

    pooled: float | None
    alone: tuple[float | None, ...]

    @property
    def alone_mean(self) -> float | None:
        """Mean over the sites that could train."""
        known = [value for value in self.alone if value is not None]
        return sum(known) / len(known) if known else None


def baselines(build: Build, task: Task, trains: Sequence[Records], holdouts: Sequence[Records]) -> Baselines:
    """Both baselines. trains, holdouts: the two parts of each site's records, in the order of sites.

    A site without training records has no model, so its accuracy is None. Not private: for simulations only.
    """
    held = union(holdouts)
    return Baselines(
        reached(build, task, union(trains), held), tuple(reached(build, task, one, held) for one in trains)
    )


def reached(build: Build, task: Task, records: Records, held: Records) -> float | None:
    """The accuracy on `held` of a model that is trained on `records`; None where either is empty."""
    return _accuracy(_trained(build(), task, records), task, held) if len(records) else None


def _trained(model: nn.Module, task: Task, records: Records) -> nn.Module:
    """Full-batch Adam with a small weight decay; no randomness beyond the model's initial weights."""
    front, head = parted(model)
    inputs = seen_through(front, records.inputs)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-3)
    model.train()
    for _ in range(STEPS if len(records) else 0):
        optimizer.zero_grad()
        torch.autograd.backward(task.losses(head(inputs), records.labels).mean())
        optimizer.step()
    return model


@torch.no_grad()
def _accuracy(model: nn.Module, task: Task, records: Records) -> float | None:
    if not len(records):
        return None
    model.eval()
    return float(task.correct(model(records.inputs), records.labels).mean())


def union(parts: Sequence[Records]) -> Records:
    """The records of all sites, one after the other."""
    return Records(
        torch.cat([part.inputs for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.groups for part in parts]),
        tuple(one for part in parts for one in part.ids),
    )
