"""What only a world that holds all data can say: exact accuracy, and what no federation would have reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from client.site import read_site
from client.sources.catalogue import read_records
from common.data import Records, split
from common.job import Job
from common.parameters import Flat, assign
from common.work import model_of
from deploy.provision import FederationFolder, SiteFolder
from simulations.baselines import baselines


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


def measure(job: Job, federation: FederationFolder, models: Sequence[Flat]) -> Yardsticks:
    """Read every site's records and judge the models of all rounds, the last one being the result.

    Never possible for a real coordinator.
    """
    torch.set_num_threads(1)  # these models are small: more threads only wait for each other
    parts = [_parts(site, job) for site in federation.sites]
    trains, holdouts = [train for train, _ in parts], [holdout for _, holdout in parts]
    found = baselines(lambda: model_of(job), job.training.task(job.data.classes), trains, holdouts)
    curve = tuple(_accuracy(job, flat, holdouts) for flat in models)
    names = [site.name for site in federation.sites]
    return Yardsticks(
        records=sum(map(len, holdouts)),
        curve=curve,
        pooled=found.pooled,
        alone=dict(zip(names, found.alone, strict=True)),
        alone_mean=found.alone_mean,
    )


@torch.no_grad()
def _accuracy(job: Job, parameters: Flat, holdouts: Sequence[Records]) -> float | None:
    task, model = job.training.task(job.data.classes), model_of(job)
    assign(model, parameters)
    model.eval()
    correct = sum(float(task.correct(model(held.inputs), held.labels).sum()) for held in holdouts)
    total = sum(map(len, holdouts))
    return correct / total if total else None


def _parts(site: SiteFolder, job: Job) -> tuple[Records, Records]:
    """The training and held-out records of a site, exactly as its agent splits them."""
    settings = read_site(site.settings)
    held = settings.dataset(job.dataset)
    reading = read_records(held.source, job.data, site.root)
    return split(reading.records, (site.root / "state" / "split.key").read_bytes(), held.holdout)
