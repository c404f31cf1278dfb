"""The rounds that simulation is measured on, and what a bare loop needs for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from common.learning.batches import Batches
from common.learning.plan import TrainingPlan
from common.parameters import Flat
from common.randomness import child, child_numpy
from simulations.bench.peers.networks import CLASSES, SIDE, convolutional, two_layers
from simulations.kernels.kernel import Course, Kernel, Lesson

RATE = 0.1
NOISE = 0.01  # deviation of the noise on a coordinate of the sum, in clips
SIGNAL = 0.5


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One kind of round: every site takes one epoch over its records in their order, by plain gradient steps of 0.1.

    cohort   sites of a round, drawn from `population`       clip  of a site's update; None: without, and without noise
    local    sites train with noise for single records; the bare loop beside them does not
    """

    title: str
    model: Callable[[], nn.Module]
    population: int
    cohort: int
    clip: float | None = None
    local: bool = False
    records: int = 50
    batch: int = 10

    def course(self) -> Course:
        """The model with the same weights every time; torch's own seed is left as it was."""
        before = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(child(0, "bench", "simulate").initial_seed())
            model = self.model()
        finally:
            torch.default_generator.set_state(before)
        plan = TrainingPlan(learning_rate=RATE, local_steps=-(-self.records // self.batch), batch=self.batch)
        return Course(model, plan.task(CLASSES), plan)

    def batches(self) -> Batches:
        """Of every site."""
        starts = range(0, self.records, self.batch)
        return tuple(np.arange(start, min(start + self.batch, self.records)) for start in starts)

    def chosen(self, number: int) -> list[int]:
        """The sites of a round."""
        draws = child_numpy(0, "cohort", number)
        return [int(site) for site in draws.choice(self.population, self.cohort, replace=False)]


W1 = Setting(title="CNN, 114 314 parameters, 10 sites of 100", model=convolutional, population=100, cohort=10)
W2 = Setting(title="MLP, 50 890 parameters, 1000 sites of 2000", model=two_layers, population=2000, cohort=1000)
WORKS: Mapping[str, Setting] = {
    "W1": W1,
    "W1-DP": replace(W1, title="as W1, updates clipped, noise on their sum", clip=1.0),
    "W1-LDP": replace(W1, title="as W1, every record clipped and noise at every step of a site", local=True),
    "W2": W2,
    "W2-DP": replace(W2, title="as W2, updates clipped, noise on their sum", clip=1.0),
}


@dataclass(frozen=True, repr=False)
class Population:
    """Records of all sites, each a picture and noise: float32 [sites, records, 1, 28, 28], int64 [sites, records]."""

    inputs: Tensor
    labels: Tensor


def population(setting: Setting) -> Population:
    """The same records every time."""
    draws = child_numpy(0, "records")
    pictures = draws.standard_normal((CLASSES, SIDE, SIDE), dtype=np.float32)
    pictures = (pictures + np.roll(pictures, 1, 1) + np.roll(pictures, 1, 2)) / np.float32(2)
    labels = draws.integers(0, CLASSES, (setting.population, setting.records))
    inputs = draws.standard_normal((*labels.shape, 1, SIDE, SIDE), dtype=np.float32)
    for site, classes in enumerate(labels):
        inputs[site, :, 0] += SIGNAL * pictures[classes]
    return Population(torch.from_numpy(inputs), torch.from_numpy(labels))


Play = Callable[[Flat, Sequence[int]], NDArray[np.float64]]  # parameters, sites -> sum of their updates


def by_kernel(kernel: Kernel, setting: Setting, data: Population) -> Play:
    """Rounds as a kernel plays them."""
    batches = setting.batches()

    def play(parameters: Flat, sites: Sequence[int]) -> NDArray[np.float64]:
        lessons = (Lesson(data.inputs[site], data.labels[site], batches) for site in sites)
        return kernel.total(parameters, lessons, setting.clip).sum

    return play


def bare(setting: Setting, data: Population) -> Play:
    """Rounds as one would write them without any framework: a model, torch's optimizer, one site after another."""
    model = setting.course().model
    parameters = list(model.parameters())

    def play(flat: Flat, sites: Sequence[int]) -> NDArray[np.float64]:
        start = [part.view_as(p) for part, p in zip(_split(flat, parameters), parameters, strict=True)]
        whole = [torch.zeros_like(part) for part in start]
        for site in sites:
            with torch.no_grad():
                for parameter, part in zip(parameters, start, strict=True):
                    parameter.copy_(part)
            optimizer = torch.optim.SGD(parameters, lr=RATE)
            for first in range(0, setting.records, setting.batch):
                rows = slice(first, first + setting.batch)
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(data.inputs[site, rows]), data.labels[site, rows])
                loss.backward()  # type: ignore[no-untyped-call]  # torch
                optimizer.step()
            with torch.no_grad():
                _add(whole, [p - part for p, part in zip(parameters, start, strict=True)], setting.clip)
        return torch.cat([part.reshape(-1) for part in whole]).double().numpy()

    return play


def _add(whole: list[Tensor], update: list[Tensor], clip: float | None) -> None:
    factor = 1.0
    if clip is not None:
        norm = torch.stack([torch.linalg.vector_norm(part) for part in update]).norm()
        factor = float((clip / norm).clamp(max=1.0))
    for part, change in zip(whole, update, strict=True):
        part.add_(change, alpha=factor)


def _split(flat: Flat, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    return torch.split(torch.from_numpy(flat), [p.numel() for p in parameters])


def following(setting: Setting, play: Play, parameters: Flat, number: int) -> Flat:
    """The parameters after round `number`: the mean update, of clipped ones with noise."""
    whole = play(parameters, setting.chosen(number))
    if setting.clip is not None:
        draws = np.random.default_rng(number)  # the same for all engines: they are compared
        whole = whole + NOISE * setting.clip * draws.standard_normal(whole.size, dtype=np.float32)
    found: Flat = (parameters + whole / setting.cohort).astype(np.float32)
    return found
