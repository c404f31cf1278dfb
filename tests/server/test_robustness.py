"""What a vote promises before any round: kept by every placement of liars, or called no guarantee."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from server.groups import spoiled_chance
from server.robustness import LIMITS, UNBOUND, promise
from server.strategies.catalogue import strategy
from server.strategies.strategy import Combine
from tests.server.test_groups import parted


def rule(name: str, liars: int, **settings: Any) -> Combine:
    return strategy(name, liars=liars, **settings).combine


@given(some.sampled_from(["median", "krum", "bulyan", "caf"]), some.integers(1, 4), some.integers(2, 9), some.data())
def test_a_promise_holds_exactly_where_no_placement_breaks_it(
    name: str, liars: int, groups: int, data: some.DataObject
) -> None:
    sites = data.draw(some.integers(max(groups, liars), 10))
    made, combine = promise(rule(name, liars), sites=sites, groups=groups), rule(name, liars)
    cohort = parted(list(range(sites)), groups)
    hits = [sum(not set(group).isdisjoint(lying) for group in cohort) for lying in combinations(range(sites), liars)]
    assert made.holds == (combine.least <= groups)
    assert made.holds == (liars <= made.outvoted)
    assert made.lost == pytest.approx(sum(hit > made.outvoted for hit in hits) / len(hits), abs=1e-12)
    if made.holds:
        assert made.lost == 0.0


@pytest.mark.parametrize(("groups", "holds"), [(8, False), (9, True), (10, True)])
def test_forty_sites_outvote_four_in_nine_groups_and_not_in_eight(groups: int, holds: bool) -> None:
    made = promise(rule("median", 4), sites=40, groups=groups)
    assert made.holds is holds
    assert made.lost == pytest.approx(0.0 if holds else spoiled_chance(40, 4, 8))


def test_a_rule_that_needs_more_groups_bears_fewer_liars() -> None:
    bears = {name: promise(rule(name, 1), sites=44, groups=11).outvoted for name in ("median", "krum", "caf", "bulyan")}
    assert bears == {"median": 5, "krum": 4, "caf": 2, "bulyan": 2}
    assert promise(rule("median", 1, pre=("bucketing",), bucket=2), sites=44, groups=11).outvoted == 2  # of 6 buckets


@pytest.mark.parametrize(("name", "settings"), [("norm-bound", {"bound": 1.0}), ("centered-clipping", {"radius": 1.0})])
def test_a_rule_that_bounds_lies_is_never_called_robust(name: str, settings: dict[str, Any]) -> None:
    made = promise(rule(name, 1, **settings), sites=40, groups=20)
    assert not made.holds
    assert "nobody is outvoted" in made.words


def test_a_drawn_cohort_holds_fewer_liars_by_chance() -> None:
    """By hand: 4 of 8 sites, 2 liars, 2 groups of 2, one of which is outvoted by none: lost if any liar is drawn."""
    made = promise(rule("median", 2), sites=8, groups=2, cohort=4)
    assert made.lost == pytest.approx(1 - comb(6, 4) / comb(8, 4))
    assert made.words.startswith("4 of 8 sites in 2 groups outvote 0 lying sites")
    whole = promise(rule("median", 4), sites=40, groups=7)
    assert promise(rule("median", 4), sites=40, groups=7, cohort=20).lost < whole.lost
    assert promise(rule("median", 4), sites=40, groups=7, cohort=40) == whole


def test_one_sum_promises_nothing() -> None:
    made = promise(strategy("fedavg").combine, sites=40, groups=1, liars=1)
    assert (made.holds, made.lost, made.words) == (False, 1.0, UNBOUND)


def test_the_words_say_how_many_liars_and_how_likely() -> None:
    combine = rule("median", 4)
    assert promise(combine, sites=40, groups=10).words == (
        "40 sites in 10 groups: up to 4 lying sites are outvoted in every round, whatever is sent."
    )
    assert promise(combine, sites=40, groups=8).words == (
        "40 sites in 8 groups outvote 3 lying sites, not 4: 9 groups are needed. 4 lying sites win a round's draw with "
        f"a chance of {spoiled_chance(40, 4, 8):.2g}."
    )
    assert "untargeted" in LIMITS


def test_a_rule_made_for_few_liars_promises_no_more_whatever_its_groups_could_bear() -> None:
    """A mean trimmed of two is moved by a third liar without end, though ten groups could outvote four."""
    combine, groups = rule("trimmed-mean", 2), np.zeros((10, 1))
    made = promise(combine, sites=20, groups=10)
    assert made.outvoted == 4
    assert made.words == "20 sites in 10 groups: up to 2 lying sites are outvoted in every round, whatever is sent."
    for lying, moved in ((2, False), (3, True)):
        groups[:lying] = 1e6
        assert bool(combine.apply(groups)[0] > 1.0) is moved


def test_backdoors_are_not_promised_away() -> None:
    assert "Backdoors stay open" in LIMITS
