"""Splits with a shape: each has the property it is named for, and an impossible one is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as some

from common.errors import Code, Refusal
from simulations.partitioners import Partition, partition

SEEDS = some.integers(0, 2**32)


def sound(dealt: tuple[np.ndarray, ...], count: int) -> None:
    """Every record at exactly one site, in increasing order."""
    assert sorted(np.concatenate(dealt).tolist()) == list(range(count))
    assert all((np.diff(rows) > 0).all() for rows in dealt)


def refusal(plan: Partition, labels: Any, homes: list[str] | None = None) -> str:
    with pytest.raises(Refusal) as found:
        partition(plan, np.asarray(labels), 1, homes)
    assert found.value.code is Code.CONFIG_INVALID
    return str(found.value)


@given(
    count=some.integers(1, 500),
    sites=some.integers(1, 20),
    minimum=some.integers(0, 9),
    exponent=some.floats(0, 3),
    seed=SEEDS,
)
def test_sizes_fall_as_the_power_of_the_rank(count: int, sites: int, minimum: int, exponent: float, seed: int) -> None:
    assume(count >= sites * max(1, minimum))
    plan = Partition(kind="power", sites=sites, minimum=minimum, exponent=exponent)
    dealt = partition(plan, np.zeros(count, np.int64), seed)
    sound(dealt, count)
    sizes = np.array([len(rows) for rows in dealt])
    assert (np.diff(sizes) <= 0).all()
    assert sizes.min() >= minimum
    weights = np.arange(1, sites + 1) ** -exponent
    assert np.abs(sizes - minimum - (count - sites * minimum) * weights / weights.sum()).max() <= 1


def test_no_exponent_is_even_and_one_is_zipf() -> None:
    def sizes(exponent: float) -> list[int]:
        plan = Partition(kind="power", sites=3, minimum=0, exponent=exponent)
        return [len(rows) for rows in partition(plan, np.zeros(1100, np.int64), 1)]

    assert sizes(0.0) == [367, 367, 366]
    assert sizes(1.0) == [600, 300, 200]


@given(known=some.integers(2, 10), sites=some.integers(1, 12), classes=some.integers(1, 10), seed=SEEDS)
def test_every_site_holds_as_many_classes_as_asked(known: int, sites: int, classes: int, seed: int) -> None:
    """Must: exactly so many, and no class without a site. Must: refuse where that cannot be."""
    labels = np.arange(40 * known) % known
    plan = Partition(kind="classes", sites=sites, classes=classes, minimum=0)
    if classes > known or sites * classes < known:
        assert "classes" in refusal(plan, labels)
        return
    dealt = partition(plan, labels, seed)
    sound(dealt, len(labels))
    held = [set(labels[rows].tolist()) for rows in dealt]
    assert {len(each) for each in held} == {classes}
    owners = [sum(label in each for each in held) for label in range(known)]
    assert max(owners) - min(owners) <= 1


def test_classes_that_nobody_could_hold_are_refused() -> None:
    plan = Partition(kind="classes", sites=4, classes=2, minimum=0)
    assert "leave some of 10 classes to nobody" in refusal(plan, np.arange(100) % 10)
    assert "the data have 1" in refusal(plan, np.zeros(100, np.int64))
    assert "class 1 has 1 records for" in refusal(plan, [0] * 50 + [1])


GROUPS = some.lists(some.sampled_from(["female", "male", "unknown"]), min_size=60, max_size=300)


@given(groups=GROUPS, sites=some.integers(3, 10), affinity=some.floats(0, 1), seed=SEEDS)
def test_a_group_dominates_its_own_sites(groups: list[str], sites: int, affinity: float, seed: int) -> None:
    plan = Partition(kind="group", column="sex", sites=sites, affinity=affinity, minimum=0)
    dealt = partition(plan, np.zeros(len(groups), np.int64), seed, groups)
    sound(dealt, len(groups))
    names = np.asarray(groups)
    own = dict.fromkeys(groups, 0)
    for name in own:
        at_home = [int((names[rows] == name).sum()) for rows in dealt]
        kept = round(affinity * int((names == name).sum()))
        most = sorted(at_home, reverse=True)
        assert sum(most[: max(1, sites - len(own) + 1)]) >= kept


def test_full_affinity_makes_pure_sites_and_none_makes_them_alike() -> None:
    groups = ["female"] * 300 + ["male"] * 100

    def shares(affinity: float) -> list[float]:
        plan = Partition(kind="group", column="sex", sites=4, affinity=affinity)
        dealt = partition(plan, np.zeros(400, np.int64), 1, groups)
        return [float(np.mean(np.asarray(groups)[rows] == "female")) for rows in dealt]

    assert shares(1.0) == [1.0, 1.0, 1.0, 0.0], "three of four records, three of four sites"
    assert all(abs(share - 0.75) < 0.15 for share in shares(0.0))
    mild, strong = shares(0.5), shares(0.9)
    assert min(mild[:3]) > 0.8
    assert mild[3] < 0.5, "its own group, a quarter of all, has the majority there"
    assert strong[3] < mild[3]


HOMES = some.lists(some.integers(0, 30).map("writer-{}".format), min_size=5, max_size=300)


@given(homes=HOMES, sites=some.integers(1, 12), seed=SEEDS)
def test_no_home_is_split_and_no_site_is_empty(homes: list[str], sites: int, seed: int) -> None:
    plan = Partition(kind="homes", column="writer", sites=sites, minimum=0)
    labels = np.zeros(len(homes), np.int64)
    if sites > len(set(homes)):
        assert "refused" in refusal(plan, labels, homes) or "not dealt" in refusal(plan, labels, homes)
        return
    dealt = partition(plan, labels, seed, homes)
    sound(dealt, len(homes))
    held = [{homes[row] for row in rows} for rows in dealt]
    assert sum(map(len, held)) == len(set(homes))
    assert min(map(len, held)) >= 1
    assert all(np.array_equal(a, b) for a, b in zip(dealt, partition(plan, labels, seed, homes), strict=True))


def test_many_homes_fill_sites_alike() -> None:
    homes = [f"writer-{i % 500}" for i in range(6000)]
    plan = Partition(kind="homes", column="writer", sites=10)
    first, second = (partition(plan, np.zeros(6000, np.int64), seed, homes) for seed in (1, 2))
    assert max(map(len, first)) - min(map(len, first)) <= 12
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize(
    "plan",
    [
        Partition(kind="even", sites=9, minimum=0),
        Partition(kind="power", sites=9, minimum=0, exponent=1.0),
        Partition(kind="classes", sites=9, minimum=0, classes=1),
        Partition(kind="group", sites=9, minimum=0, column="sex", affinity=0.5),
        Partition(kind="homes", sites=9, minimum=0, column="sex"),
        Partition(kind="group", sites=1, minimum=0, column="sex", affinity=0.5),
    ],
    ids=lambda plan: f"{plan.kind}-{plan.sites}",
)
def test_more_sites_than_records_or_fewer_than_groups_are_refused(plan: Partition) -> None:
    assert "not dealt" in refusal(plan, np.arange(8) % 2, ["a", "b"] * 4)


@pytest.mark.parametrize("kind", ["group", "natural", "homes"])
def test_a_column_that_the_data_lack_is_refused(kind: Any) -> None:
    plan = Partition(kind=kind, column="home", sites=2, affinity=0.5 if kind == "group" else None)
    assert "no such column" in refusal(plan, np.zeros(100, np.int64))
