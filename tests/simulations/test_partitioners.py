"""Dealing records to sites: each exactly once, replayed by its seed, nobody below the minimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from common import config
from common.errors import Code, Refusal
from simulations.partitioners import Partition, partition

LABELS = np.arange(600) % 3


@given(
    kind=some.sampled_from(["even", "uneven", "label"]),
    count=some.integers(1, 120),
    sites=some.integers(1, 8),
    concentration=some.floats(1e-3, 100.0),
    seed=some.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_every_record_goes_to_exactly_one_site(
    kind: Any, count: int, sites: int, concentration: float, seed: int
) -> None:
    plan = Partition(kind=kind, sites=sites, concentration=concentration, minimum=0)
    labels = np.arange(count) % 4
    if sites > count:
        with pytest.raises(Refusal, match="fewer than 1"):
            partition(plan, labels, seed)
        return
    dealt = partition(plan, labels, seed)
    assert len(dealt) == sites
    assert sorted(np.concatenate(dealt).tolist()) == list(range(count))
    again = partition(plan, labels, seed)
    assert all(np.array_equal(a, b) for a, b in zip(dealt, again, strict=True))


def test_even_sites_differ_by_at_most_one_record() -> None:
    sizes = [len(rows) for rows in partition(Partition(sites=7), LABELS, 0)]
    assert max(sizes) - min(sizes) <= 1


def test_a_small_concentration_makes_sizes_or_labels_extreme() -> None:
    def spread(concentration: float) -> float:
        plan = Partition(kind="uneven", sites=5, concentration=concentration, minimum=0)
        return float(np.std([len(rows) for rows in partition(plan, LABELS, 1)]))

    def purity(concentration: float) -> float:
        plan = Partition(kind="label", sites=5, concentration=concentration, minimum=1)
        dealt = partition(plan, LABELS, 1)
        return float(np.mean([np.bincount(LABELS[rows]).max() / len(rows) for rows in dealt]))

    assert spread(0.1) > 3 * spread(100.0)
    assert purity(0.1) > purity(1000.0) + 0.2


def test_another_seed_deals_otherwise() -> None:
    first, second = (partition(Partition(), LABELS, seed) for seed in (0, 1))
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize("kind", ["uneven", "label"])
def test_every_site_gets_its_minimum(kind: Any) -> None:
    dealt = partition(Partition(kind=kind, sites=6, concentration=0.5, minimum=10), LABELS, 3)
    assert min(map(len, dealt)) >= 10


@pytest.mark.parametrize(
    "plan",
    [
        Partition(sites=100, minimum=8),
        Partition(kind="uneven", sites=50, concentration=0.01, minimum=8),
        Partition(kind="natural", column="home", minimum=400),
    ],
)
def test_a_deal_that_leaves_a_site_short_is_refused(plan: Partition) -> None:
    with pytest.raises(Refusal, match="fewer than") as caught:
        partition(plan, LABELS, 0, ["a"] * 300 + ["b"] * 300)
    assert caught.value.code is Code.CONFIG_INVALID


def test_natural_sites_are_those_of_the_column() -> None:
    dealt = partition(Partition(kind="natural", column="home", minimum=1), LABELS[:4], 0, ["b", "a", "b", "c"])
    assert [rows.tolist() for rows in dealt] == [[0, 2], [1], [3]]
    with pytest.raises(Refusal, match="no such column"):
        partition(Partition(kind="natural", column="home"), LABELS, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "natural"},
        {"column": "home"},
        {"sites": 0},
        {"concentration": 0.0},
        {"kind": "evn"},
        {"minimum": -1},
        {"kind": "power"},
        {"kind": "power", "exponent": -1.0},
        {"kind": "classes", "classes": 0},
        {"kind": "group", "column": "sex"},
        {"kind": "group", "column": "sex", "affinity": 1.1},
        {"kind": "homes"},
        {"kind": "even", "classes": 2},
        {"kind": "label", "affinity": 0.5},
    ],
)
def test_a_partition_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        config.load(Partition, settings)
    assert caught.value.code is Code.CONFIG_INVALID
