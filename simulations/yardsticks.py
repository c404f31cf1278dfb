"""What only a world that holds all data can say: exact accuracy, and what no federation would have reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from common.data import Records
from common.job import Job
from common.parameters import Flat, assign
from common.work import model_of
from simulations.backstage import Backstage
from simulations.baselines import Baselines, reached


@dataclass(frozen=True)
class Yardsticks:
    """Accuracies on the held-out records of all sites together.

    records how many they are
    curve   of the federated model after each given round
    pooled  of one model on all training records, without privacy      alone  of each site's own model
    """

    records: int
    curve: tuple[float | None, ...]
    pooled: float | None
    alone: dict[str, float | None]
    alone_mean: float | None

    @property
    def accuracy(self) -> float | None:
        """Of the result."""
        return self.curve[-1]

    def as_dict(self) -> dict[str, Any]:
        """The entries `baselines` of run.json."""
        return {
            "records": self.records,
            "pooled_accuracy": self.pooled,
            "alone_accuracy": self.alone_mean,
            "alone": self.alone,
        }


def measure(job: Job, backstage: Backstage, models: Sequence[Flat]) -> Yardsticks:
    """Judge the models of all rounds, the last one being the result, on everybody's records."""
    torch.set_num_threads(1)  # these models are small: more threads only wait for each other
    build, task = partial(model_of, job), job.training.task(job.data.classes)
    alone = {name: reached(build, task, one, backstage.held) for name, one in backstage.alone.items()}
    found = Baselines(reached(build, task, backstage.train, backstage.held), tuple(alone.values()))
    return Yardsticks(
        records=len(backstage.held),
        curve=tuple(accuracy(job, flat, backstage.held) for flat in models),
        pooled=found.pooled,
        alone=alone,
        alone_mean=found.alone_mean,
    )


@torch.no_grad()
def accuracy(job: Job, parameters: Flat, held: Records) -> float | None:
    """Share of these records that the model with these parameters tells right; None of no record."""
    if not len(held):
        return None
    task, model = job.training.task(job.data.classes), model_of(job)
    assign(model, parameters)
    model.eval()
    return float(task.correct(model(held.inputs), held.labels).mean(dtype=torch.float64))
