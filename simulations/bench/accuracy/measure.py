"""What a study reaches: one row for each arrangement, over all its seeds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from common.learning.plan import TrainingPlan
from common.models.front import parted
from common.privacy.accounting import REPORT, total_epsilon
from common.privacy.claims import promise
from common.privacy.clipping import choice
from common.privacy.clipping.engine import ClipEngine
from common.privacy.clipping.probes import Probe
from common.privacy.mechanism import MechanismPlan
from simulations.bench.accuracy.arrangements import Task, train
from simulations.bench.accuracy.material import Larder, Material, model_for
from simulations.bench.accuracy.studies import DELTA, Study

Step = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One study in one arrangement.

    sites             1: all records in one place (mode M1); more: noise added up in secure sums (mode M2)
    epsilon           that all steps cost one record at `delta`, from the plan
    noise_multiplier  deviation of the noise over the bound of one record; of the honest sites' sum
    accuracies        of each seed on the test records, between 0 and 1; then their mean, deviation and least
    engine            that clipped, as the first seed's run chose it
    cpu_seconds       of one run, least over the seeds, planning and features left out
    feature_seconds   CPU seconds of the model's fixed front for all records, once
    published, source what others report at this epsilon and delta      aim  see `Study`
    claim             what the epsilon means, in sentences
    """

    study: str
    data: str
    model: str
    parameters: int
    sites: int
    epsilon: float
    delta: float
    noise_multiplier: float
    clip: float
    sampling_rate: float
    steps: int
    rate: float
    seeds: int
    accuracies: tuple[float, ...]
    accuracy: float
    deviation: float | None
    least: float
    engine: str
    cpu_seconds: float
    feature_seconds: float
    published: float | None
    source: str
    aim: float
    claim: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Run:
    """One training that was done."""

    plan: MechanismPlan
    engine: ClipEngine
    accuracy: float
    cpu_seconds: float
    feature_seconds: float


def measure(study: Study, sites: int, seeds: Sequence[int], larder: Larder, step: Step) -> Row:
    """The row of `study` at so many sites. step: called after every seed. Errors: Refusal FILE_MISSING, JOB_INVALID."""
    torch.set_num_threads(1)
    runs = []
    for seed in seeds:
        runs.append(_run(study, sites, seed, larder.get(study, seed)))
        step(note=f"{study.name}, {sites} site{'s' * (sites > 1)}, seed {seed}: {runs[-1].accuracy:.2%}")
    plan, reached = runs[0].plan, tuple(run.accuracy for run in runs)
    steps = plan.steps * plan.releases
    return Row(
        study=study.name,
        data=study.data,
        model=study.model,
        parameters=plan.dimension,
        sites=sites,
        epsilon=total_epsilon([plan.charge(steps)], DELTA, REPORT),
        delta=DELTA,
        noise_multiplier=plan.noise_multiplier,
        clip=plan.clip,
        sampling_rate=plan.sampling_rate,
        steps=steps,
        rate=study.rate,
        seeds=len(runs),
        accuracies=reached,
        accuracy=statistics.fmean(reached),
        deviation=statistics.stdev(reached) if len(reached) > 1 else None,
        least=min(reached),
        engine=repr(runs[0].engine),
        cpu_seconds=min(run.cpu_seconds for run in runs),
        feature_seconds=runs[0].feature_seconds,
        published=study.published,
        source=study.source,
        aim=study.aim,
        claim=promise("of this measurement", [(plan, steps)], DELTA).sentences(),
    )


def _run(study: Study, sites: int, seed: int, material: Material) -> Run:
    """One training and its test."""
    _, head = parted(model_for(study, _shape(study), seed))
    task = Task(study, head, _engine(study, head, material), material.train, sites, seed)
    plan = task.plan()
    begun = time.process_time()
    train(task, plan)
    took = time.process_time() - begun
    return Run(plan, task.engine, _tested(task, material), took, material.cpu_seconds)


@torch.no_grad()
def _tested(task: Task, material: Material) -> float:
    """Share of the test records whose class is found."""
    task.head.eval()
    test = material.test
    return float(task.bench.task.correct(task.head(test.inputs), test.labels).mean())


def _shape(study: Study) -> tuple[int, int, int]:
    return (1, 8, 8) if study.data == "digits" else (1, 28, 28)


def _engine(study: Study, head: nn.Module, material: Material) -> ClipEngine:
    """The fastest engine that is right for the study's model, as a site would choose it."""
    probe = Probe(tuple(material.train.inputs.shape[1:]), 10)
    losses = TrainingPlan(learning_rate=study.rate).task(10).losses
    asked = choice.Work(key=f"{study.data} {study.model}".encode(), losses=losses, probe=probe, records=study.batch)
    return choice.choose("auto", head, asked, measured=True)
