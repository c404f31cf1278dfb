"""Canary sites: whole sites that a simulation makes up, whose training records are there or not by a coin each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from common.data import Feature, Records, Schema, record_id, split
from common.errors import Code, Refusal
from common.privacy.settings import PrivacySettings
from common.randomness import child_numpy
from simulations.datasets import Dataset
from simulations.planting import Planting
from simulations.resampling import Rows

TRAINED, HELD = 8, 2  # records of a canary site that it trains on if it is in, and that it holds out in any case
SPREAD = 0.1  # of the public range: how far its records lie from the site's own pattern
_TRIES = 4  # times the draws that are expected to give enough of either part


def refuse_blurred(privacy: PrivacySettings) -> None:
    """Refuse jobs in which a site without training records sends something: it must be as if it were not there.

    Errors: Refusal CONFIG_INVALID.
    """
    for name, why in (
        ("quantile", "a site that is out would still tell that it is within the clip"),
        ("local", "a site that is out would still send the noise for single records"),
    ):
        if getattr(privacy, name) is not None:
            raise Refusal(
                Code.CONFIG_INVALID,
                f"Canary sites under privacy.{name}",
                why,
                f"Leave {name} out of the scenario, or audit it without canary sites: against its mechanism alone",
            )


def plant_sites(
    data: Dataset, dealt: Sequence[Rows], keys: Sequence[bytes], seed: int, holdout: float
) -> tuple[Planting, tuple[Rows, ...]]:
    """Make up as many sites as there are more `keys` than `dealt`; their plan, and the rows that every site has.

    All records of a canary site have one label and are near one pattern, each input at an end of its public range, so
    that its update is long and has a direction of its own. Its held-out records are there whatever the coin says.
    The coins depend on the seed alone, never on the data, and no noise ever depends on that seed.
    Errors: Refusal CONFIG_INVALID where the data are images as arrays, or too few different records can be made up.
    """
    if data.pixels is not None:
        why = "they are made for rows of cells only"
        raise Refusal(Code.CONFIG_INVALID, f"Canary sites in {data.name!r}", why, "Plant them in another data set")
    columns = {name: list(cells) for name, cells in data.columns.items()}
    rows, members = [np.zeros(0, np.int64)] * len(dealt), [np.zeros(0, bool)] * len(dealt)
    held, first = list(dealt), len(data)
    for site in range(len(dealt), len(keys)):
        made = _made(data, keys[site], holdout, child_numpy(seed, "canary sites", site))
        for name, cells in columns.items():
            cells += made[name]
        held.append(np.arange(first, first + HELD))
        rows.append(np.arange(first + HELD, first + HELD + TRAINED))
        members.append(np.full(TRAINED, child_numpy(seed, "coins of canary sites", site).random() < 0.5))
        first += HELD + TRAINED
    labels = np.concatenate([data.labels, np.zeros(first - len(data), np.int64)])
    return Planting(replace(data, columns=columns, labels=labels), tuple(rows), tuple(members)), tuple(held)


def _made(data: Dataset, key: bytes, holdout: float, stream: np.random.Generator) -> Mapping[str, list[str]]:
    """HELD records by column that the site holds out, then TRAINED ones that it would train on."""
    drawn = _drawn(data, math.ceil(_TRIES * max(HELD / holdout, TRAINED / (1 - holdout))), stream)
    cells = zip(*(cells for name, cells in drawn.items() if name != data.home), strict=True)
    ids = [record_id([cell.encode() for cell in row]) for row in cells]
    nothing = torch.zeros(len(ids), dtype=torch.int64)
    kept, out = split(Records(nothing, nothing, nothing, tuple(ids)), key, holdout)
    places = {one: place for place, one in enumerate(ids)}
    wanted = [
        places[one]
        for part, count in ((out, HELD), (kept, TRAINED))
        for one in list(dict.fromkeys(part.ids))[:count]
    ]  # fmt: skip
    if len(wanted) < HELD + TRAINED:
        why = "too few different records fit the columns and their parts"
        raise Refusal(Code.CONFIG_INVALID, "Canary site not made", why, "Hold out a share that is not near 0 or 1")
    return {name: [cells[place] for place in wanted] for name, cells in drawn.items()}


def _drawn(data: Dataset, count: int, stream: np.random.Generator) -> Mapping[str, list[str]]:
    """Rows around one pattern by column; columns that are no input come from one real row."""
    row = int(stream.integers(len(data)))
    columns = {name: [cells[row]] * count for name, cells in data.columns.items()}
    columns |= {feature.name: _near(feature, count, stream) for feature in data.schema.columns}
    return columns | {data.schema.label.column: [_label(data.schema, stream)] * count}


def _near(feature: Feature, count: int, stream: np.random.Generator) -> list[str]:
    """Values of one column near the end that the site's pattern has; of categories always the same."""
    if feature.range is None:
        return [str(stream.choice(feature.categories))] * count
    low, high = feature.range
    away = SPREAD * (high - low) * stream.random(count)
    return [f"{value:.6g}" for value in (high - away if stream.random() < 0.5 else low + away)]


def _label(schema: Schema, stream: np.random.Generator) -> str:
    if schema.label.above is None:
        return str(stream.choice(schema.label.classes))
    return f"{schema.label.above + float(stream.choice((-1.0, 1.0))):.6g}"
