"""Attacks that stay within what honest updates differ by: they know them, and send what no distance tells apart."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, sqrt
from typing import Literal

import numpy as np
from scipy.stats import norm

from common.config import finite
from common.errors import Code, Refusal
from server.strategies.geometry import distances
from server.strategies.strategy import Flat64, Memory, Rows64
from simulations.adversaries.updates import Attack, View


@dataclass(frozen=True, kw_only=True)
class Product:
    """epsilon: how many times the reversed honest mean is sent."""

    epsilon: float

    def __post_init__(self) -> None:
        finite(self.epsilon, "epsilon", above=0.0)


@dataclass(frozen=True, kw_only=True)
class Little:
    """z: standard deviations from the honest mean; left out, the most that a majority is expected to cover."""

    z: float | None = None

    def __post_init__(self) -> None:
        if self.z is not None:
            finite(self.z, "z", above=0.0)


@dataclass(frozen=True, kw_only=True)
class Away:
    """direction: of the lie from the honest mean: "unit" against it, "deviation" by coordinate, "sign" of each."""

    direction: Literal["unit", "deviation", "sign"] = "deviation"


@dataclass(frozen=True, kw_only=True)
class Mimic:
    """warm_up: rounds in which the direction is learned; afterwards the same site is copied."""

    warm_up: int

    def __post_init__(self) -> None:
        finite(self.warm_up, "warm_up", above=0)


def inner_product(settings: Product) -> Attack:
    """-epsilon times the honest mean: beyond h / f the plain mean points backwards. Source: Xie et al. 2020 (IPM)."""
    return Attack(lambda view: _all(view, -settings.epsilon * view.honest.mean(axis=0)))


def little_is_enough(settings: Little) -> Attack:
    """The honest mean less z standard deviations, coordinate by coordinate. Source: Baruch et al. 2019 (ALIE)."""

    def lies(view: View) -> Rows64:
        z = z_max(view.sites, len(view.own)) if settings.z is None else settings.z
        return _all(view, view.honest.mean(axis=0) - z * view.honest.std(axis=0))

    return Attack(lies)


def z_max(sites: int, liars: int) -> float:
    """Deviations within which so many honest sites are expected that with the liars they are the majority.

    Normal quantile of (n - f - s) / (n - f) with s = floor(n / 2 + 1) - f; 0 where that lies below one half.
    Errors: Refusal CONFIG_INVALID where the liars are the majority themselves.
    """
    supporters, honest = floor(sites / 2 + 1) - liars, sites - liars
    if supporters <= 0:
        why = f"{liars} of {sites} sites are a majority without any other"
        raise Refusal(Code.CONFIG_INVALID, "alie without z", why, "Give z, or fewer liars")
    return max(0.0, float(norm.ppf((honest - supporters) / honest)))


def min_max(settings: Away) -> Attack:
    """As far from the honest mean as a lie is no farther from any honest row than honest rows are from each other.

    Source: Shejwalkar and Houmansadr 2021 (Min-Max), its largest gamma in closed form instead of by halving.
    """

    def lies(view: View) -> Rows64:
        honest, mean, away = view.honest, view.honest.mean(axis=0), _direction(view.honest, settings)
        reach, pulls = distances(honest).max(), (mean - honest) @ away
        gaps, length = reach - ((mean - honest) ** 2).sum(axis=1), away @ away
        roots = (np.sqrt(np.maximum(0.0, pulls**2 + length * gaps)) - pulls) / length if length else np.zeros(1)
        return _all(view, mean + max(0.0, float(roots.min())) * away)

    return Attack(lies)


def min_sum(settings: Away) -> Attack:
    """As far from the honest mean as squared distances to all honest rows add up to no more than an honest row's do.

    Source: Shejwalkar and Houmansadr 2021 (Min-Sum), its largest gamma in closed form.
    """

    def lies(view: View) -> Rows64:
        honest, mean, away = view.honest, view.honest.mean(axis=0), _direction(view.honest, settings)
        room = distances(honest).sum(axis=1).max() - ((mean - honest) ** 2).sum()
        length = len(honest) * float(away @ away)
        return _all(view, mean + (sqrt(max(0.0, float(room)) / length) if length else 0.0) * away)

    return Attack(lies)


def mimic(settings: Mimic) -> Attack:
    """All copy one honest site: the one that lies farthest along the direction in which honest sites differ most.

    The direction is learned by Oja's rule while the rounds of `warm_up` last. Nothing that is sent is a lie by itself;
    rows of one site are only counted too often. Rows of honest sites must come in the same order every round.
    Source: Karimireddy, He and Jaggi 2022 (mimic); our direction starts at the row farthest from the mean.
    """

    def learn(view: View) -> Memory:
        return _learned(view.memory, view.honest, settings.warm_up)

    return Attack(lambda view: _all(view, view.honest[int(learn(view)["target"][0])]), learn)


def _learned(memory: Memory, honest: Rows64, warm_up: int) -> Memory:
    """What is known after this round: rounds seen, mean, direction, and the row to copy."""
    seen = float(memory["seen"][0]) if memory else 0.0
    if seen >= warm_up and memory["target"][0] < len(honest):
        return memory
    mean = (seen * memory["mean"] + honest.mean(axis=0)) / (seen + 1) if memory else honest.mean(axis=0)
    rows = honest - mean
    farthest: Flat64 = rows[np.argmax(np.linalg.norm(rows, axis=1))]
    before = memory["direction"] if memory else _unit(farthest)
    direction = _unit((seen * before + _unit(rows.T @ (rows @ before))) / (seen + 1))
    target = float(np.argmax(honest @ direction))
    known = {"seen": np.array([seen + 1]), "mean": mean, "direction": direction}
    return {**known, "target": np.array([target])}


def _direction(honest: Rows64, settings: Away) -> Flat64:
    mean = honest.mean(axis=0)
    away: Flat64 = {"unit": _unit(mean), "deviation": honest.std(axis=0), "sign": np.sign(mean)}[settings.direction]
    return -away


def _unit(row: Flat64) -> Flat64:
    length = float(np.linalg.norm(row))
    return np.asarray(row / length if length else row, np.float64)


def _all(view: View, row: Flat64) -> Rows64:
    """All liars send the same."""
    return np.tile(row, (len(view.own), 1))
