"""Random groups: disjoint, whole, repeatable, each fit for its sum; and how often liars would win the vote."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from common.errors import Code, Refusal
from common.randomness import child
from server.groups import grouped, spoiled_chance


def parted(cohort: list[int], count: int, least: int = 1, seed: int = 1) -> tuple[tuple[int, ...], ...]:
    return grouped(cohort, count, fits=lambda group: len(group) >= least, draw=child(seed, "groups"))


@given(some.sets(some.integers(1, 500), min_size=8, max_size=40), some.integers(1, 8), some.integers(0, 2**32))
def test_groups_are_disjoint_whole_and_of_nearly_equal_size(cohort: set[int], count: int, seed: int) -> None:
    groups = parted(sorted(cohort), count, seed=seed)
    assert len(groups) == count
    assert sorted(site for group in groups for site in group) == sorted(cohort)
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert groups == parted(sorted(cohort, reverse=True), count, seed=seed)


def test_another_draw_parts_otherwise() -> None:
    assert len({parted(list(range(1, 13)), 3, seed=seed) for seed in range(5)}) == 5


def test_a_group_without_its_quorum_is_no_group() -> None:
    with pytest.raises(Refusal) as caught:
        parted([1, 2, 3, 4, 5], 2, least=3)
    assert caught.value.code is Code.E_TOO_FEW


def test_groups_are_drawn_again_until_every_one_has_its_organisations() -> None:
    """Odd and even sites are of two organisations: each group needs both."""
    groups = grouped(range(1, 9), 4, fits=lambda group: len({site % 2 for site in group}) == 2, draw=child(3, "groups"))
    assert all(len({site % 2 for site in group}) == 2 for group in groups)


@pytest.mark.parametrize(
    ("sites", "liars", "groups"), [(6, 2, 3), (8, 3, 4), (9, 4, 3), (8, 5, 2), (6, 1, 3), (6, 0, 3)]
)
def test_the_chance_that_liars_win_counts_every_placement(sites: int, liars: int, groups: int) -> None:
    size = sites // groups
    placements = [len({site // size for site in chosen}) for chosen in combinations(range(sites), liars)]
    lost = sum(2 * hit >= groups for hit in placements) / len(placements)
    assert spoiled_chance(sites, liars, groups) == pytest.approx(lost, abs=1e-12)


@pytest.mark.parametrize(("sites", "liars", "size", "safe"), [
    (40, 4, 4, 1.0), (40, 4, 5, 0.52), (40, 4, 8, 0.19), (100, 10, 4, 1.0), (100, 10, 5, 0.90), (100, 10, 10, 0.009),
    (100, 20, 2, 1.0), (100, 20, 4, 0.04),
])  # fmt: skip
def test_published_chances_of_an_honest_majority(sites: int, liars: int, size: int, safe: float) -> None:
    assert 1 - spoiled_chance(sites, liars, sites // size) == pytest.approx(safe, abs=6e-3)


@given(some.data())
def test_the_chance_counts_every_placement_also_where_groups_differ_by_a_site(data: some.DataObject) -> None:
    sites = data.draw(some.integers(2, 9))
    liars, groups = data.draw(some.integers(0, sites)), data.draw(some.integers(1, sites))
    outvoted = data.draw(some.integers(0, groups))
    cohort = parted(list(range(sites)), groups)
    hits = [sum(not set(group).isdisjoint(chosen) for group in cohort) for chosen in combinations(range(sites), liars)]
    lost = sum(hit > outvoted for hit in hits) / len(hits)
    assert spoiled_chance(sites, liars, groups, outvoted) == pytest.approx(lost, abs=1e-12)


@pytest.mark.parametrize(("sites", "liars", "groups"), [(3, 4, 2), (3, 1, 4), (3, -1, 2), (3, 1, 0)])
def test_what_is_no_grouping_has_no_chance(sites: int, liars: int, groups: int) -> None:
    with pytest.raises(ValueError, match="group"):
        spoiled_chance(sites, liars, groups)
