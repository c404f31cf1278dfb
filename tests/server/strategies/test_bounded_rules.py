"""Rules that bound lies instead of outvoting them, and stages before a rule: against slow forms and known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from common.errors import Code, Refusal
from server.strategies.catalogue import strategy
from server.strategies.preaggregation import adaptive_clip, bucketing, clip, nearest_mixing
from server.strategies.strategy import LAST
from tests.server.strategies.kappas import inputs
from tests.server.strategies.slow_rules import adaptively_cut, bounded_mean, centred, cut, in_buckets, nearest_mixed

STAGES = [
    (clip(0.7), lambda rows, _: [cut(row, 0.7) for row in rows]),
    (adaptive_clip(), adaptively_cut),
    (nearest_mixing(), nearest_mixed),
    (bucketing(2), in_buckets(2)),
    (bucketing(4), in_buckets(4)),
]


@pytest.mark.parametrize(("stage", "slow"), STAGES)
def test_a_stage_gives_what_its_slow_form_gives(stage: Any, slow: Any) -> None:
    for rows in inputs(9, 2, 14):
        found, wanted = stage.apply(rows, 2), np.array(slow(rows.tolist(), 2))
        assert np.allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(rows).min())
        assert len(found) == len(wanted)


def test_rules_that_bound_give_what_their_slow_forms_give() -> None:
    for rows in inputs(9, 2, 14):
        last = rows.mean(axis=0) / max(1.0, np.abs(rows.mean(axis=0)).max())
        for steps in (1, 3):
            combine = strategy("centered-clipping", liars=2, radius=0.8, steps=steps).combine
            wanted = centred(0.8, steps, last.tolist())(rows.tolist(), 2)
            assert combine.apply(rows, last) == pytest.approx(wanted, rel=1e-9, abs=1e-9)
        wanted = bounded_mean(0.8)(rows.tolist(), 2)
        assert strategy("norm-bound", liars=2, bound=0.8).combine.apply(rows) == pytest.approx(wanted, abs=1e-9)


def test_lies_attain_the_bound_on_what_they_can_do() -> None:
    """2 f C / m = 0.4 for 25 rows, 5 liars, C = 1."""
    combine = strategy("norm-bound", liars=5, bound=1.0).combine
    rows = np.tile([1.0, 0.0], (25, 1))
    lying = rows.copy()
    lying[:5] = [-1e6, 0.0]
    assert np.linalg.norm(combine.apply(rows) - combine.apply(lying)) == pytest.approx(0.4, abs=1e-12)
    centred_rule = strategy("centered-clipping", liars=5, radius=1.0).combine
    moved = [centred_rule.apply(some_rows * 1e6, np.zeros(2)) for some_rows in (rows, lying)]
    assert np.linalg.norm(moved[0] - moved[1]) == pytest.approx(0.4, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=some.integers(0, 2**32), liars=some.integers(1, 4), steps=some.integers(1, 4))
def test_no_lie_does_more_than_the_bound(seed: int, liars: int, steps: int) -> None:
    stream = np.random.default_rng(seed)
    rows, last = stream.normal(size=(9, 3)) * 3, stream.normal(size=3)
    lying = rows.copy()
    lying[:liars] = stream.normal(size=(liars, 3)) * 10.0 ** stream.integers(-2, 30)
    combine = strategy("norm-bound", liars=liars, bound=0.5).combine
    assert np.linalg.norm(combine.apply(rows) - combine.apply(lying)) <= 2 * liars * 0.5 / 9 + 1e-12
    combine = strategy("centered-clipping", liars=liars, radius=0.5, steps=steps).combine
    update = combine.apply(lying, last)
    assert np.linalg.norm(combine.apply(rows, last) - update) <= 2 * steps * liars * 0.5 / 9 + 1e-12
    assert np.linalg.norm(update - last) <= steps * 0.5 + 1e-12


def test_the_last_update_is_remembered_from_round_to_round() -> None:
    chosen = strategy("centered-clipping", liars=1, radius=1.0, rate=0.5)
    rows = np.tile([10.0, 0.0], (3, 1))
    memory = chosen.init(2)
    assert {name: kept.tolist() for name, kept in memory.items()} == {LAST: [0.0, 0.0]}
    for turn in range(1, 4):
        memory, change = chosen.apply(memory, rows)
        assert memory[LAST].tolist() == [float(turn), 0.0]
        assert change.tolist() == [turn / 2, 0.0]
    assert strategy("krum", liars=1).init(2) == {}
    assert strategy("fedavgm").apply(strategy("fedavgm").init(2), rows[:1])[1].tolist() == [10.0, 0.0]


def test_stages_come_in_the_order_in_which_they_are_named_and_before_the_rule() -> None:
    for rows in inputs(9, 2, 7):
        combine = strategy("krum", liars=2, pre=("clip", "nnm"), clip=0.7).combine
        by_hand = strategy("krum", liars=2).combine.apply(nearest_mixing().apply(clip(0.7).apply(rows, 2), 2))
        assert np.array_equal(combine.apply(rows), by_hand)


def test_adaptive_clipping_leaves_no_row_longer_than_the_longest_honest_one() -> None:
    for rows in inputs(9, 2, 21):
        longest_honest = np.sort(np.linalg.norm(rows, axis=1))[6]  # whoever the two liars are
        assert np.linalg.norm(adaptive_clip().apply(rows, 2), axis=1).max() <= longest_honest * (1 + 1e-12)


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("krum", {}, "liars"),
        ("krum", {"liars": 0}, "above 0"),
        ("krum", {"liars": 1, "pre": ("nmn",)}, "nearest is 'nnm'"),
        ("krum", {"liars": 1, "pre": ("nnm", "arc")}, "comes first"),
        ("krum", {"liars": 1, "pre": ("clip", "arc"), "clip": 1.0}, "at most one"),
        ("krum", {"liars": 1, "pre": ("nnm", "bucketing"), "bucket": 2}, "at most one"),
        ("krum", {"liars": 1, "pre": ("nnm", "nnm")}, "at most one"),
        ("krum", {"liars": 1, "pre": ("clip",)}, "clip"),
        ("krum", {"liars": 1, "pre": ("bucketing",)}, "bucket"),
        ("krum", {"liars": 1, "pre": ("bucketing",), "bucket": 1}, "at least 2"),
        ("krum", {"liars": 1, "clip": 1.0}, "nothing in pre"),
        ("krum", {"liars": 1, "pre": ("nnm",), "bucket": 2}, "nothing in pre"),
        ("krum", {"liars": 1, "pre": ("clip",), "clip": float("inf")}, "finite"),
        ("krum", {"liars": 1, "radius": 1.0}, "no setting 'radius'"),
        ("centered-clipping", {"liars": 1}, "radius"),
        ("centered-clipping", {"liars": 1, "radius": 1.0, "steps": 0}, "above 0"),
        ("norm-bound", {"liars": 1}, "bound"),
        ("norm-bound", {"liars": 1, "bound": 1.0, "pre": ("clip",)}, "no setting 'pre'"),
        ("fedavg", {"pre": ("nnm",)}, "no setting 'pre'"),
    ],
)
def test_settings_that_make_no_defence_are_refused(name: str, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(Refusal, match=told) as caught:
        strategy(name, **settings)
    assert caught.value.code is Code.CONFIG_INVALID
