"""Rows that are no numbers, or endless: a finite update or a refusal, and never a vote for whoever sends them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from common.errors import Code, Refusal
from server.strategies.catalogue import STRATEGIES, strategy
from server.strategies.votes import VOTES

OWN: dict[str, dict[str, Any]] = {"centered-clipping": {"radius": 1.0}, "norm-bound": {"bound": 5.0}}
PRES: list[dict[str, Any]] = [
    {},
    {"pre": ("arc", "nnm")},
    {"pre": ("clip", "bucketing"), "clip": 3.0, "bucket": 2},
]
COMPOSED = [(name, pre) for name in VOTES for pre in PRES if name != "norm-bound" or not pre]
BAD = [np.nan, np.inf, -np.inf, 1e39, -1e300]


def combine(name: str, liars: int = 1, pre: dict[str, Any] | None = None) -> Any:
    return strategy(name, liars=liars, **OWN.get(name, {}), **(pre or {})).combine


@pytest.mark.parametrize("pre", PRES[:2], ids=["plain", "arc nnm"])
@pytest.mark.parametrize("name", VOTES.keys() - {"norm-bound"})
@given(data=some.data())
@settings(max_examples=12, deadline=None)
def test_what_is_no_number_is_left_out_before_anything_else(
    name: str, pre: dict[str, Any], data: some.DataObject
) -> None:
    """Must: give what the other rows give, wherever the bad ones stand. Must not: be NaN, or be moved by them."""
    rule = combine(name, 2, pre)
    stream = np.random.default_rng(data.draw(some.integers(0, 2**32)))
    rows, bad = stream.normal(size=(rule.least, 6)), stream.normal(size=(data.draw(some.integers(1, 3)), 6))
    for row in bad:
        row[data.draw(some.integers(0, 5))] = data.draw(some.sampled_from(BAD))
    at = data.draw(some.integers(0, len(rows)))
    assert np.array_equal(rule.apply(np.vstack([rows[:at], bad, rows[at:]])), rule.apply(rows))


@pytest.mark.parametrize(("name", "pre"), COMPOSED)
def test_endless_numbers_leave_the_update_where_honest_rows_are(name: str, pre: dict[str, Any]) -> None:
    rule = combine(name, 2, pre)
    rows = np.random.default_rng(3).normal(size=(max(rule.least, 11), 40))
    for lie in (1e30, 3e38, -1e30):
        lying = rows.copy()
        lying[:2] = lie
        update = rule.apply(lying)
        assert np.isfinite(update).all()
        assert np.abs(update).max() <= 5.0


@pytest.mark.parametrize("name", VOTES)
def test_too_few_rows_are_refused_and_one_more_is_enough(name: str) -> None:
    """Must not: fall back to an average that one liar decides."""
    for liars in (1, 2, 4):
        rule = combine(name, liars)
        rows = np.ones((rule.least, 3))
        assert rule.apply(rows) == pytest.approx(np.ones(3) if name != "centered-clipping" else 3**-0.5 * np.ones(3))
        for few in (rows[1:], rows[:0]):
            with pytest.raises(Refusal) as caught:
                rule.apply(few)
            assert caught.value.code is Code.E_TOO_FEW


def test_the_groups_that_each_rule_needs_are_those_of_its_proof() -> None:
    needs = {name: [combine(name, liars).least for liars in (1, 2, 3)] for name in VOTES}
    assert needs.pop("krum") == needs.pop("multi-krum") == [5, 7, 9]
    assert needs.pop("bulyan") == [7, 11, 15]
    assert needs.pop("caf") == [5, 10, 15]
    assert all(least == [3, 5, 7] for least in needs.values())
    assert combine("krum", 2, {"pre": ("bucketing",), "bucket": 3}).least == 19  # seven buckets


def test_a_row_that_is_no_number_is_a_lie_that_was_told() -> None:
    """Must: one NaN of one liar not stop three groups. Must not: more of them than liars pass for a kept promise."""
    rule = combine("median", 1)
    assert rule.apply(np.array([[0.0], [2.0], [np.nan]])).tolist() == [1.0]
    for rows in ([[0.0], [np.nan], [np.nan]], [[0.0], [0.0], [np.inf], [np.nan]], [[np.nan]] * 3):
        with pytest.raises(Refusal, match="no numbers") as caught:
            rule.apply(np.array(rows))
        assert caught.value.code is Code.E_TOO_FEW


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int64])
@pytest.mark.parametrize("name", VOTES)
def test_rows_of_another_type_are_computed_in_float64(name: str, kind: Any) -> None:
    rows = np.random.default_rng(5).integers(-60_000, 60_000, size=(11, 3)).astype(kind)
    update = combine(name).apply(rows)
    assert update.dtype == np.float64
    assert np.array_equal(update, combine(name).apply(rows.astype(np.float64)))


@pytest.mark.parametrize(("name", "pre"), COMPOSED)
def test_rows_are_left_as_they_were(name: str, pre: dict[str, Any]) -> None:
    rule = combine(name, 1, pre)
    rows = 10 * np.random.default_rng(6).normal(size=(rule.least, 4))
    kept = rows.copy()
    update = rule.apply(rows)
    update += 1.0
    assert np.array_equal(rows, kept)


def test_distances_keep_their_digits_where_updates_are_far_from_zero() -> None:
    """Must not: pick by |a|^2 + |b|^2 - 2ab, which is rounding alone at a distance of 1e9."""
    rows = 1e9 + np.array([[0.0, 0.0], [1e-2, 0.0], [0.0, 1e-2], [5e-3, 5e-3], [1.0, 1.0]])
    assert combine("krum").apply(rows).tolist() == rows[3].tolist()


def test_twenty_groups_are_the_most_whose_subsets_are_looked_at() -> None:
    with pytest.raises(Refusal, match="every subset") as caught:
        combine("mda").apply(np.zeros((21, 2)))
    assert caught.value.code is Code.UPDATE_INVALID
    assert {name for name in VOTES if combine(name).most < 64} == {"mda"}
    assert combine("mda", 8).apply(np.random.default_rng(7).normal(size=(20, 3))).shape == (3,)


def test_only_the_one_rule_that_starts_from_the_last_update_remembers_it() -> None:
    assert {name for name in VOTES if combine(name).remembers} == {"centered-clipping"}
    assert {name for name in VOTES if not combine(name).votes} == {"centered-clipping", "norm-bound"}
    assert not strategy("fedavg").combine.votes
    assert STRATEGIES.keys() > VOTES.keys()
