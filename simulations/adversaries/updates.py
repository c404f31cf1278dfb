"""Attacks on updates that need no look at the others': reversed, boosted, noisy, empty, stale, or no numbers at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from common.catalogue import NoSettings
from common.config import finite
from server.strategies.strategy import Flat64, Memory, Rows64

NOTHING: Mapping[str, Flat64] = {}


@dataclass(frozen=True)
class View:
    """What lying sites know when they choose what to send.

    honest  updates of the honest sites, [h, d]: the most that can be granted; less is had by passing other rows
    own     what they would have sent, [f, d]
    memory  what `Attack.remembered` left in the round before; empty in the first
    draws   for attacks that need chance
    others  honest sites of the round, which all know; left out, as many as there are rows in `honest`
    """

    honest: Rows64
    own: Rows64
    memory: Memory
    draws: np.random.Generator
    others: int | None = None

    @property
    def sites(self) -> int:
        """All sites of the round, liars included."""
        return len(self.own) + (len(self.honest) if self.others is None else self.others)


@dataclass(frozen=True)
class Attack:
    """What lying sites send instead of their updates. Neither function changes what it is given.

    lies   view -> rows [f, d]
    learn  view -> memory for the next round
    """

    lies: Callable[[View], Rows64]
    learn: Callable[[View], Memory] = lambda _: NOTHING

    def poisoned(self, honest: Rows64, own: Rows64, memory: Memory, draws: np.random.Generator) -> Rows64:
        """The rows that liars send instead of `own`, [f, d]."""
        return self.lies(View(honest, own, memory, draws))

    def remembered(self, honest: Rows64, own: Rows64, memory: Memory, draws: np.random.Generator) -> Memory:
        """What they know in the next round."""
        return self.learn(View(honest, own, memory, draws))


@dataclass(frozen=True, kw_only=True)
class SignFlip:
    """scale: how many times the reversed update is sent."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        finite(self.scale, "scale", above=0.0)


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """deviation: of each coordinate, in model units; no default, for it depends on the model."""

    deviation: float

    def __post_init__(self) -> None:
        finite(self.deviation, "deviation", above=0.0)


@dataclass(frozen=True, kw_only=True)
class Boost:
    """boost: how many times the own update is sent; left out, sites over liars, which replaces the mean."""

    boost: float | None = None

    def __post_init__(self) -> None:
        if self.boost is not None:
            finite(self.boost, "boost", above=0.0)


@dataclass(frozen=True, kw_only=True)
class NotFinite:
    """value: what stands in every coordinate; "huge" is 1e30, which is finite."""

    value: Literal["nan", "inf", "huge"]


def sign_flip(settings: SignFlip) -> Attack:
    """-scale times the own update. Source: Li et al. 2019 (RSA)."""
    return Attack(lambda view: -settings.scale * view.own)


def gaussian(settings: Gaussian) -> Attack:
    """Normal noise instead of an update. Source: Blanchard et al. 2017."""
    return Attack(lambda view: settings.deviation * view.draws.standard_normal(view.own.shape))


def replacement(settings: Boost) -> Attack:
    """The own update, so often that the mean becomes it: with boost n / f the mean of all is the mean own update plus
    the honest updates' sum over n. Meant for updates that were trained on poisoned records.
    Source: Bagdasaryan et al. 2020 (model replacement).
    """

    def lies(view: View) -> Rows64:
        liars = max(1, len(view.own))
        return (view.sites / liars if settings.boost is None else settings.boost) * view.own

    return Attack(lies)


def not_finite(settings: NotFinite) -> Attack:
    """No numbers, or endless ones: what a rule must survive before it is called robust."""
    value = 1e30 if settings.value == "huge" else float(settings.value)
    return Attack(lambda view: np.full_like(view.own, value))


def zero(_: NoSettings) -> Attack:
    """Nothing at all: a site that takes part and does not work."""
    return Attack(lambda view: np.zeros_like(view.own))


def stale(_: NoSettings) -> Attack:
    """The own update of the round before; the true one in the first round, or where the liars' number changed."""

    def lies(view: View) -> Rows64:
        before = view.memory.get("own", view.own)
        return (before if before.shape == view.own.shape else view.own).copy()

    return Attack(lies, lambda view: {"own": view.own.copy()})
