"""Canaries: records that a simulation makes up and puts into sites' data by coins, so that it can be audited."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from common.config import finite
from common.data import Feature, Records, Schema, record_id, split
from common.errors import Code, Refusal
from common.randomness import child_numpy
from simulations.datasets import Dataset

LIT = 1 / 8  # share of an image's pixels that a canary lights: few, so that two canaries hardly share any
_TRIES = 4  # times the draws that are expected to give enough canaries for training


@dataclass(frozen=True, kw_only=True)
class CanarySettings:
    """The table [world.canaries]: `count` records are made up, dealt to the sites in turn, and each is in by a coin.

    Of a job that protects whole sites: `count` sites are made up besides the others, and each is in by a coin.
    A run with canaries tells how much its releases betray (`hushfed audit canaries`); its model has learned made-up
    records with labels at random, and is for nothing else.
    """

    count: int

    def __post_init__(self) -> None:
        finite(self.count, "world.canaries.count", at_least=2, at_most=100_000)


@dataclass(frozen=True, repr=False)
class Planting:
    """A data set with the canaries as its last rows, and where they went.

    data     the data set, longer by `settings.count` rows
    rows     [sites][canaries of the site] row numbers, those in and those out
    members  bool, the same shape: which are in
    """

    data: Dataset
    rows: tuple[NDArray[np.int64], ...]
    members: tuple[NDArray[np.bool_], ...]

    def added(self, site: int) -> NDArray[np.int64]:
        """Rows of the canaries that are in the site's data."""
        return self.rows[site][self.members[site]]


def plant(data: Dataset, settings: CanarySettings | None, seed: int, keys: Sequence[bytes], holdout: float) -> Planting:
    """Make up the canaries of a world and flip their coins; the same seed gives the same ones.

    keys     of each site's split; every canary is one that the site would train on
    holdout  share that sites keep for evaluation
    The coins depend on the seed alone, never on the data, and no noise ever depends on that seed.
    Errors: Refusal CONFIG_INVALID where so many do not fit, or the data are images as arrays.
    """
    count = settings.count if settings else 0
    if data.pixels is not None:
        return _untouched(data, count, len(keys))
    shares = [len(range(site, count, len(keys))) for site in range(len(keys))]
    columns = {name: list(cells) for name, cells in data.columns.items()}
    rows, members, first = [], [], len(data)
    for site, (share, key) in enumerate(zip(shares, keys, strict=True)):
        made = _made(data, share, key, holdout, child_numpy(seed, "canaries", site))
        for name, cells in columns.items():
            cells += made[name]
        rows.append(np.arange(first, first + share))
        members.append(child_numpy(seed, "coins of canaries", site).random(share) < 0.5)
        first += share
    labels = np.concatenate([data.labels, np.zeros(count, np.int64)])
    return Planting(replace(data, columns=columns, labels=labels), tuple(rows), tuple(members))


def _untouched(data: Dataset, count: int, sites: int) -> Planting:
    """Images as arrays, in which no canaries are planted."""
    if count:
        why = "they are made for rows of cells only"
        raise Refusal(Code.CONFIG_INVALID, f"Canaries in {data.name!r}", why, "Plant them in another data set")
    return Planting(data, (np.zeros(0, np.int64),) * sites, (np.zeros(0, bool),) * sites)


def _made(
    data: Dataset, count: int, key: bytes, holdout: float, stream: np.random.Generator
) -> Mapping[str, list[str]]:
    """`count` canaries by column that fall into the training part of the site that splits by `key`."""
    drawn = _drawn(data, math.ceil(_TRIES * count / (1 - holdout)), stream)
    rows = zip(*(cells for name, cells in drawn.items() if name != data.home), strict=True)
    ids = [record_id([cell.encode() for cell in row]) for row in rows]
    nothing = torch.zeros(len(ids), dtype=torch.int64)
    kept, _ = split(Records(nothing, nothing, nothing, tuple(ids)), key, holdout)
    places = {one: place for place, one in enumerate(ids)}
    wanted = [places[one] for one in dict.fromkeys(kept.ids)][:count]
    if len(wanted) < count:
        why = f"only {len(wanted)} different ones fit the columns and the training part"
        raise Refusal(Code.CONFIG_INVALID, f"{count} canaries of a site not made", why, "Plant fewer")
    return {name: [cells[place] for place in wanted] for name, cells in drawn.items()}


def _drawn(data: Dataset, count: int, stream: np.random.Generator) -> Mapping[str, list[str]]:
    """Made-up rows by column: inputs over their public range, labels at random, other columns from real rows."""
    rows, image = stream.integers(len(data), size=count), data.schema.image is not None
    columns = {name: [cells[row] for row in rows] for name, cells in data.columns.items()}
    columns |= {feature.name: _inputs(feature, count, stream, image=image) for feature in data.schema.columns}
    return columns | {data.schema.label.column: _labels(data.schema, count, stream)}


def _inputs(feature: Feature, count: int, stream: np.random.Generator, *, image: bool) -> list[str]:
    if feature.range is None:
        return [str(one) for one in stream.choice(feature.categories, size=count)]
    low, high = feature.range
    values = stream.uniform((low + high) / 2 if image else low, high, size=count)
    lit = stream.random(count) < LIT if image else np.ones(count, bool)
    return [f"{value:.6g}" for value in np.where(lit, values, low)]


def _labels(schema: Schema, count: int, stream: np.random.Generator) -> list[str]:
    if schema.label.above is None:
        return [str(one) for one in stream.choice(schema.label.classes, size=count)]
    return [f"{schema.label.above + step:.6g}" for step in stream.choice((-1.0, 1.0), size=count)]
