"""Local optimizers by name; functions of the gradient alone, so they keep what a private gradient guarantees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from common.catalogue import Catalogue, Entry, catalogue, find
from common.config import finite
from common.errors import Code, Refusal
from common.ranges import not_negative, share


@dataclass(frozen=True, kw_only=True)
class SgdSettings:
    """weight_decay: pull towards zero, per step and unit of learning rate."""

    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        not_negative(self.weight_decay, "weight_decay")


@dataclass(frozen=True, kw_only=True)
class MomentumSettings:
    """momentum: share of the last step that is kept.  nesterov: whether the gradient is taken ahead."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        share(self.momentum, "momentum")
        if self.nesterov and not self.momentum:
            raise Refusal(
                Code.CONFIG_INVALID, "nesterov", "it needs a momentum above 0", "Set momentum or drop nesterov"
            )
        not_negative(self.weight_decay, "weight_decay")


@dataclass(frozen=True, kw_only=True)
class AdamSettings:
    """b1, b2: memory of the mean and of the square.  floor: added to the root of the square."""

    b1: float = 0.9
    b2: float = 0.999
    floor: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        share(self.b1, "b1")
        share(self.b2, "b2")
        finite(self.floor, "floor", above=0.0)
        not_negative(self.weight_decay, "weight_decay")


Parameters = Iterable[nn.Parameter]


def sgd(parameters: Parameters, rate: float, settings: SgdSettings) -> torch.optim.Optimizer:
    """w - rate * (gradient + weight_decay * w)."""
    return torch.optim.SGD(parameters, rate, weight_decay=settings.weight_decay)


def momentum(parameters: Parameters, rate: float, settings: MomentumSettings) -> torch.optim.Optimizer:
    """v = momentum * v + gradient; w - rate * v."""
    return torch.optim.SGD(
        parameters,
        rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )


def adam(parameters: Parameters, rate: float, settings: AdamSettings) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay; without decay it is Kingma and Ba's."""
    return torch.optim.AdamW(
        parameters,
        rate,
        betas=(settings.b1, settings.b2),
        eps=settings.floor,
        weight_decay=settings.weight_decay,
    )


OPTIMIZERS: Catalogue[torch.optim.Optimizer] = catalogue(
    Entry(name="sgd", summary="plain gradient descent", paper="Robbins and Monro 1951", settings=SgdSettings, make=sgd),
    Entry(
        name="momentum",
        summary="gradient descent that keeps a share of its last step",
        paper="Polyak 1964; Nesterov 1983",
        settings=MomentumSettings,
        make=momentum,
    ),
    Entry(
        name="adam",
        summary="steps scaled by running mean and square of the gradient",
        paper="Kingma and Ba 2015; Loshchilov and Hutter 2019",
        settings=AdamSettings,
        make=adam,
    ),
)


def optimizer(name: str, parameters: Parameters, rate: float, **settings: Any) -> torch.optim.Optimizer:
    """The optimizer `name` over `parameters` with learning rate `rate`. Errors: Refusal CONFIG_INVALID."""
    finite(rate, "learning_rate", above=0.0)
    entry = find(OPTIMIZERS, name, "optimizer")
    return entry.make(parameters, rate, entry.read(settings))
