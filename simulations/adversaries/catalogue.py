"""The attacks by name: on records, on updates, and those whose strength can be searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.catalogue import Catalogue, Entry, NoSettings, catalogue, find
from common.config import one_of
from common.data import Schema
from simulations.adversaries import hidden, records, updates
from simulations.adversaries.adaptive import Harm, Pipeline, Search, adaptive, distance
from simulations.adversaries.records import Poisoning
from simulations.adversaries.updates import Attack

ON_RECORDS: Catalogue[Poisoning] = catalogue(
    Entry(
        name="label-flip",
        summary="every label turned round: class y is called C - 1 - y",
        paper="Karimireddy et al. 2022",
        settings=NoSettings,
        make=records.label_flip,
    ),
    Entry(
        name="targeted-flip",
        summary="records of one class called another",
        paper="Tolpegin et al. 2020",
        settings=records.Flip,
        make=records.targeted_flip,
    ),
    Entry(
        name="patch",
        summary="backdoor: a lit patch means the target class",
        paper="Gu et al. 2017; Bagdasaryan et al. 2020",
        settings=records.Patch,
        make=records.patch,
    ),
    Entry(
        name="edge-case",
        summary="backdoor: mirrored images of one class called another",
        paper="Wang et al. 2020",
        settings=records.Flip,
        make=records.edge_case,
        input="image",
    ),
    Entry(
        name="tail",
        summary="backdoor: the records of one class farthest from its mean called another",
        paper="Wang et al. 2020",
        settings=records.Flip,
        make=records.tail,
    ),
)

ON_UPDATES: Catalogue[Attack] = catalogue(
    Entry(
        name="sign-flip",
        summary="the own update reversed, and scaled",
        paper="Li et al. 2019",
        settings=updates.SignFlip,
        make=updates.sign_flip,
    ),
    Entry(
        name="gaussian",
        summary="normal noise instead of an update",
        paper="Blanchard et al. 2017",
        settings=updates.Gaussian,
        make=updates.gaussian,
    ),
    Entry(
        name="ipm",
        summary="the honest mean reversed, and scaled (inner product manipulation)",
        paper="Xie et al. 2020",
        settings=hidden.Product,
        make=hidden.inner_product,
    ),
    Entry(
        name="alie",
        summary="the honest mean less z standard deviations (a little is enough)",
        paper="Baruch et al. 2019",
        settings=hidden.Little,
        make=hidden.little_is_enough,
    ),
    Entry(
        name="mimic",
        summary="all liars copy the honest site that differs most",
        paper="Karimireddy et al. 2022",
        settings=hidden.Mimic,
        make=hidden.mimic,
    ),
    Entry(
        name="min-max",
        summary="as far off as honest updates are from each other",
        paper="Shejwalkar and Houmansadr 2021",
        settings=hidden.Away,
        make=hidden.min_max,
    ),
    Entry(
        name="min-sum",
        summary="as far off as squared distances of an honest update add up to",
        paper="Shejwalkar and Houmansadr 2021",
        settings=hidden.Away,
        make=hidden.min_sum,
    ),
    Entry(
        name="not-finite",
        summary="NaN, infinity, or 1e30 in every coordinate",
        paper="a broken or hostile site",
        settings=updates.NotFinite,
        make=updates.not_finite,
    ),
    Entry(
        name="zero",
        summary="no work: an update of zeros",
        paper="a site that does not work",
        settings=NoSettings,
        make=updates.zero,
    ),
    Entry(
        name="stale",
        summary="the own update of the round before",
        paper="a site that lags",
        settings=NoSettings,
        make=updates.stale,
    ),
    Entry(
        name="replacement",
        summary="the own update boosted until it replaces the mean",
        paper="Bagdasaryan et al. 2020",
        settings=updates.Boost,
        make=updates.replacement,
    ),
)

STRENGTHS: Mapping[str, tuple[str, Search]] = {
    "sign-flip": ("scale", Search(low=0.1, high=1000.0)),
    "ipm": ("epsilon", Search(low=0.01, high=1000.0)),
    "alie": ("z", Search(low=0.05, high=50.0)),
    "replacement": ("boost", Search(low=1.0, high=1000.0)),
}


def on_records(name: str, schema: Schema, **settings: Any) -> Poisoning:
    """The attack `name` on records of this schema.

    Errors: Refusal CONFIG_INVALID naming the nearest name or setting, or what does not fit the schema.
    """
    entry = find(ON_RECORDS, name, "attack on records")
    made: Poisoning = entry.make(entry.read(settings), schema)
    return made


def on_updates(name: str, **settings: Any) -> Attack:
    """The attack `name` on updates. Errors: as `on_records`."""
    entry = find(ON_UPDATES, name, "attack on updates")
    return entry.make(entry.read(settings))


def adaptive_on_updates(name: str, pipeline: Pipeline, harm: Harm = distance, **settings: Any) -> Attack:
    """The attack `name` with the strength that harms `pipeline` most, in each round anew.

    settings  all of the attack's but its strength
    Errors: Refusal CONFIG_INVALID, also for an attack that has no strength to search.
    """
    one_of(name, "adaptive attack", STRENGTHS.keys())
    strength, search = STRENGTHS[name]
    return adaptive(lambda value: on_updates(name, **{**settings, strength: value}), pipeline, search, harm)
