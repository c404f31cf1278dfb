"""Attacks that know their opponent: the strength that does most harm to the very pipeline they are sent to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from common.errors import Refusal
from server.strategies.strategy import Flat64, Rows64
from simulations.adversaries.updates import Attack, View

Pipeline = Callable[[Rows64], Flat64]  # rows [h + f, d], the honest ones first -> update [d]
Harm = Callable[[Flat64, Rows64], float]  # update, honest rows -> how bad it is
GOLDEN = (sqrt(5) - 1) / 2


def distance(update: Flat64, honest: Rows64) -> float:
    """How far the update is from the honest mean, in model units."""
    return float(np.linalg.norm(update - honest.mean(axis=0)))


@dataclass(frozen=True, kw_only=True)
class Search:
    """Strengths from `low` to `high`: `points` of them on a logarithmic scale, then `steps` around the `peaks` highest
    of those that do more harm than their neighbours.
    """

    low: float
    high: float
    points: int = 48
    steps: int = 8
    peaks: int = 3


def adaptive(family: Callable[[float], Attack], pipeline: Pipeline, search: Search, harm: Harm = distance) -> Attack:
    """The attack of `family` at the strength, found anew each round, whose lies do most harm through `pipeline`.

    A search on a logarithmic scale, then golden section around the highest peaks. Harm may jump with the strength, so
    this is a lower bound on what the family can do. Whatever the pipeline refuses does no harm. All strengths of a
    round see the same draws.
    Source: search of the strength as in Shejwalkar and Houmansadr 2021 and Allouah et al. 2023.
    """

    def lies(view: View) -> Rows64:
        seed = int(view.draws.integers(2**63))

        def sent(strength: float) -> Rows64:
            return family(strength).lies(replace(view, draws=np.random.default_rng(seed)))

        def harmed(strength: float) -> float:
            try:
                return harm(pipeline(np.vstack([view.honest, sent(strength)])), view.honest)
            except Refusal:
                return 0.0

        return sent(strongest(harmed, search))

    return Attack(lies, family(search.low).learn)


def strongest(harmed: Callable[[float], float], search: Search) -> float:
    """The strength with the most harm of all that were tried."""
    grid = [float(strength) for strength in np.geomspace(search.low, search.high, search.points)]
    tried = {strength: harmed(strength) for strength in grid}
    ends = [grid[0], *grid, grid[-1]]
    peaks = [
        (tried[strength], low, high)
        for low, strength, high in zip(ends, grid, ends[2:], strict=False)
        if tried[strength] >= max(tried[low], tried[high])
    ]
    for _, low, high in sorted(peaks, reverse=True)[: search.peaks]:
        tried |= _refined(harmed, low, high, search.steps)
    return max(tried, key=lambda strength: tried[strength])


def _refined(harmed: Callable[[float], float], low: float, high: float, steps: int) -> dict[float, float]:
    """Harm of the strengths that golden section tries between two others."""
    tried: dict[float, float] = {}
    inner = (high - GOLDEN * (high - low), low + GOLDEN * (high - low))
    harms = (harmed(inner[0]), harmed(inner[1]))
    for _ in range(steps):
        tried |= dict(zip(inner, harms, strict=True))
        if harms[0] >= harms[1]:
            high, inner = inner[1], (inner[1] - GOLDEN * (inner[1] - low), inner[0])
            harms = (harmed(inner[0]), harms[0])
        else:
            low, inner = inner[0], (inner[1], inner[0] + GOLDEN * (high - inner[0]))
            harms = (harms[1], harmed(inner[1]))
    return tried | dict(zip(inner, harms, strict=True))
