"""The strategies by name. Each needs only secure sums, of all sites or of groups, so it lives after noise too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from common.catalogue import Catalogue, Entry, catalogue, find
from common.config import finite
from common.learning.plan import TrainingPlan
from common.ranges import not_negative, share
from server.strategies.combine import mean
from server.strategies.steps import adagrad, adam, descend, momentum, yogi
from server.strategies.strategy import Step, Strategy, same
from server.strategies.votes import VOTES


@dataclass(frozen=True, kw_only=True)
class Rate:
    """rate: how far the model follows the update."""

    rate: float = 1.0

    def __post_init__(self) -> None:
        finite(self.rate, "rate", above=0.0)


@dataclass(frozen=True, kw_only=True)
class Prox:
    """pull: towards the parameters of the round's start (mu); no default, for it depends on the data."""

    pull: float
    rate: float = 1.0

    def __post_init__(self) -> None:
        finite(self.rate, "rate", above=0.0)
        not_negative(self.pull, "pull")


@dataclass(frozen=True, kw_only=True)
class Keep:
    """rate: how far the model follows.  keep: share of the last step that is kept."""

    rate: float = 1.0
    keep: float = 0.9

    def __post_init__(self) -> None:
        finite(self.rate, "rate", above=0.0)
        share(self.keep, "keep")


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """rate: size of a step.  b1, b2: memory of mean and square.  floor: how far a step adapts (tau)."""

    rate: float = 0.1
    b1: float = 0.9
    b2: float = 0.99
    floor: float = 1e-3

    def __post_init__(self) -> None:
        finite(self.rate, "rate", above=0.0)
        finite(self.floor, "floor", above=0.0)
        share(self.b1, "b1")
        share(self.b2, "b2")


@dataclass(frozen=True, kw_only=True)
class Summing:
    """rate: size of a step.  b1: memory of the mean.  floor: how far a step adapts (tau)."""

    rate: float = 0.1
    b1: float = 0.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        finite(self.rate, "rate", above=0.0)
        finite(self.floor, "floor", above=0.0)
        share(self.b1, "b1")


def _with(step: Step) -> Strategy:
    return Strategy(same, mean(), step)


def _one_step(plan: TrainingPlan) -> TrainingPlan:
    return replace(plan, local_steps=1)


def _prox(s: Prox) -> Strategy:
    return Strategy(lambda plan: replace(plan, proximal=s.pull), mean(), descend(s.rate))


MEANS: Catalogue[Strategy] = catalogue(
    Entry(
        name="fedavg",
        summary="mean of the sites' updates",
        paper="McMahan et al. 2017",
        settings=Rate,
        make=lambda s: _with(descend(s.rate)),
    ),
    Entry(
        name="fedsgd",
        summary="one batch a round: descent along the mean gradient",
        paper="McMahan et al. 2017",
        settings=Rate,
        make=lambda s: Strategy(_one_step, mean(), descend(s.rate)),
    ),
    Entry(
        name="fedprox",
        summary="sites are pulled to the round's start; no effect with one local step",
        paper="Li et al. 2020",
        settings=Prox,
        make=_prox,
    ),
    Entry(
        name="fedavgm",
        summary="momentum at the server",
        paper="Hsu, Qi and Brown 2019",
        settings=Keep,
        make=lambda s: _with(momentum(s.rate, s.keep)),
    ),
    Entry(
        name="fedadam",
        summary="Adam at the server",
        paper="Reddi et al. 2021, algorithm 2",
        settings=Adaptive,
        make=lambda s: _with(adam(s.rate, b1=s.b1, b2=s.b2, floor=s.floor)),
    ),
    Entry(
        name="fedyogi",
        summary="Yogi at the server: the square moves by bounded steps",
        paper="Reddi et al. 2021, algorithm 2",
        settings=Adaptive,
        make=lambda s: _with(yogi(s.rate, b1=s.b1, b2=s.b2, floor=s.floor)),
    ),
    Entry(
        name="fedadagrad",
        summary="Adagrad at the server: steps shrink with the sum of squares",
        paper="Reddi et al. 2021, algorithm 2",
        settings=Summing,
        make=lambda s: _with(adagrad(s.rate, b1=s.b1, floor=s.floor)),
    ),
)

STRATEGIES: Catalogue[Strategy] = {**MEANS, **VOTES}


def strategy(name: str, **settings: Any) -> Strategy:
    """The strategy `name` with its settings. Errors: Refusal CONFIG_INVALID naming the nearest name or setting."""
    entry = find(STRATEGIES, name, "strategy")
    return entry.make(entry.read(settings))
