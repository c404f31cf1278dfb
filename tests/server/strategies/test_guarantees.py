"""What each rule promises is kept on every input that was thought of, and wrong rules are found out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from server.strategies.catalogue import STRATEGIES, strategy
from server.strategies.geometry import distances, weighted
from tests.server.strategies.kappas import KAPPA, Apply, Rows, adaptively_cut, inputs, nearest_mixed, worst_kappa
from tests.server.strategies.slow_rules import SLOW

SIZES = {"bulyan": (11, 2), "caf": (10, 2)}
PLAIN, MIXED, CUT = (), ("nnm",), ("arc",)


def rule(name: str, f: int, **settings: Any) -> Apply:
    return strategy(name, liars=f, **settings).combine.apply


def agrees(apply: Apply, slow: Callable[[Any, int], Any], m: int, f: int, count: int = 14) -> bool:
    """Whether the rule gives what its slow form gives, for rows without ties."""
    return all(
        np.allclose(apply(rows), slow(rows.tolist(), f), rtol=1e-6, atol=1e-6 * np.abs(np.median(rows, axis=0)).max())
        for rows in inputs(m, f, count)
    )


def holds(apply: Apply, bound: float, m: int, f: int, count: int = 42) -> bool:
    return all(worst_kappa(apply, rows, f) <= bound for rows in inputs(m, f, count))


@pytest.mark.parametrize("name", SLOW)
def test_a_rule_gives_what_its_slow_form_gives(name: str) -> None:
    m, f = SIZES.get(name, (9, 2))
    assert agrees(rule(name, f), SLOW[name], m, f)


@pytest.mark.parametrize("name", KAPPA)
@pytest.mark.parametrize("f", [1, 2])
def test_no_lie_moves_a_rule_farther_than_its_kappa(name: str, f: int) -> None:
    m = SIZES.get(name, (9, 2))[0]
    assert holds(rule(name, f), KAPPA[name](m, f), m, f)


@pytest.mark.parametrize("name", KAPPA)
def test_mixing_and_cutting_keep_the_kappa_that_they_promise(name: str) -> None:
    m, f = SIZES.get(name, (9, 2))
    bound = KAPPA[name](m, f)
    assert holds(rule(name, f, pre=("nnm",)), nearest_mixed(bound, m, f), m, f)
    assert holds(rule(name, f, pre=("arc",)), adaptively_cut(bound, m, f), m, f)
    assert holds(rule(name, f, pre=("arc", "nnm")), adaptively_cut(nearest_mixed(bound, m, f), m, f), m, f)


def test_the_filter_s_bound_is_on_the_variance_in_the_worst_direction() -> None:
    """Stronger than kappa: in many dimensions that variance is a small part of the spread."""
    stream = np.random.default_rng(11)
    for turn in range(30):
        honest = stream.normal(size=(9, 30)) + 1.0
        lie = [1e3 * stream.normal(size=30), honest.mean(axis=0) - 2 * honest.std(axis=0), -honest.mean(axis=0)][
            turn % 3
        ]
        update = rule("caf", 1)(stream.permutation(np.vstack([honest, lie])))
        widest = np.linalg.norm(honest - honest.mean(axis=0), ord=2) ** 2 / 9
        assert ((update - honest.mean(axis=0)) ** 2).sum() <= KAPPA["caf"](10, 1) * widest


def test_the_bounds_are_those_of_the_papers() -> None:
    """9 rows, 2 liars: 3.36, 7.84, 8.40 (Krum's, above ours) and 9.97 behind mixing."""
    assert KAPPA["trimmed-mean"](9, 2) == pytest.approx(3.36)
    assert KAPPA["median"](9, 2) == pytest.approx(7.84)
    assert KAPPA["krum"](9, 2) < 8.40
    assert nearest_mixed(3.36, 9, 2) == pytest.approx(9.97, abs=5e-3)


@settings(max_examples=60, deadline=None)
@given(data=some.data())
def test_no_drawn_lie_moves_a_rule_farther_than_its_kappa(data: some.DataObject) -> None:
    name = data.draw(some.sampled_from(sorted(KAPPA)))
    f = data.draw(some.integers(1, 2))
    m = data.draw(some.integers(strategy(name, liars=f).combine.least, 10))
    numbers = some.floats(-100, 100).map(lambda value: round(value, 3))
    rows = np.array(data.draw(some.lists(some.lists(numbers, min_size=2, max_size=2), min_size=m, max_size=m)))
    assert worst_kappa(rule(name, f), rows, f) <= KAPPA[name](m, f) * (1 + 1e-9)


def test_the_trimmed_mean_attains_the_least_that_any_rule_can_promise() -> None:
    """f / (m - 2f): f honest rows at 1 are cut like lies, and no rule can tell."""
    rows = np.array([[0.0]] * 7 + [[1.0]] * 2)
    assert worst_kappa(rule("trimmed-mean", 2), rows, 2) == pytest.approx(2 / 5)


def test_the_geometric_median_is_converged() -> None:
    """Must: have no direction to go down. Must not: stop after a few steps."""
    for rows in inputs(9, 2, 42):
        away = rows - rule("geometric-median", 2)(rows)
        lengths = np.linalg.norm(away, axis=1)
        here = lengths <= 1e-9 * np.median(lengths)
        pull = np.linalg.norm((away[~here] / lengths[~here, None]).sum(axis=0))
        assert pull <= here.sum() + 1e-8


def test_between_two_middle_points_the_geometric_median_is_their_middle() -> None:
    on_a_line = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 6.0], [40.0, 80.0]])
    assert rule("geometric-median", 1)(on_a_line).tolist() == [2.0, 4.0]


@pytest.mark.parametrize("pre", [PLAIN, MIXED, CUT])
def test_bulyan_takes_no_coordinate_farther_from_the_median_than_an_honest_one(pre: tuple[str, ...]) -> None:
    for rows in inputs(11, 2, 21):
        honest = rows[np.argsort(np.abs(rows).max(axis=1))[:9]]
        reach = honest.max(axis=0) - honest.min(axis=0)
        update = rule("bulyan", 2, pre=pre)(rows)
        assert (update >= honest.min(axis=0) - reach).all()
        assert (update <= honest.max(axis=0) + reach).all()


def least_trimmed(rows: Rows) -> Rows:
    return np.sort(rows, axis=0)[1:8].mean(axis=0)


def unsorted(rows: Rows) -> Rows:
    return rows[2:7].mean(axis=0)


def one_sided(rows: Rows) -> Rows:
    return np.sort(rows, axis=0)[:5].mean(axis=0)


def worst_krum(rows: Rows) -> Rows:
    return rows[np.argmax(np.sort(distances(rows), axis=1)[:, 1:6].sum(axis=1))]


def mean(rows: Rows) -> Rows:
    return rows.mean(axis=0)


def krum_of_all(rows: Rows) -> Rows:
    return rows[np.argmin(distances(rows).sum(axis=1))]


def three_steps(rows: Rows) -> Rows:
    here = np.zeros(rows.shape[1])
    for _ in range(3):
        here = weighted(rows, 1 / np.maximum(np.linalg.norm(rows - here, axis=1), 0.1))
    return here


MUTANTS = [
    ("trimmed-mean", least_trimmed),
    ("trimmed-mean", unsorted),
    ("trimmed-mean", one_sided),
    ("trimmed-mean", mean),
    ("krum", worst_krum),
    ("krum", krum_of_all),
    ("geometric-median", three_steps),
]


@pytest.mark.parametrize(("name", "mutant"), MUTANTS)
def test_a_wrong_rule_is_found_by_its_bound_or_by_its_slow_form(name: str, mutant: Apply) -> None:
    assert not (holds(mutant, KAPPA[name](9, 2), 9, 2) and agrees(mutant, SLOW[name], 9, 2))


@pytest.mark.parametrize("name", SLOW)
@given(seed=some.integers(0, 2**32), f=some.integers(1, 2), scale=some.floats(0.01, 100.0))
@settings(max_examples=15, deadline=None)
def test_rows_may_come_in_any_order_place_and_unit(name: str, seed: int, f: int, scale: float) -> None:
    """Must: permuted rows give the same, moved and scaled rows the same moved and scaled."""
    stream = np.random.default_rng(seed)
    apply, width = rule(name, f), int(stream.integers(1, 30))
    rows = stream.normal(size=(strategy(name, liars=f).combine.least + int(stream.integers(0, 3)), width))
    there, update = 5 * stream.normal(size=width), apply(rows)
    assert apply(stream.permutation(rows)) == pytest.approx(update, abs=1e-7)
    assert apply(scale * rows) == pytest.approx(scale * update, abs=1e-7 * scale)
    assert apply(rows + there) == pytest.approx(update + there, abs=1e-7)


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("pre", [PLAIN, MIXED, CUT])
def test_rows_that_agree_are_taken_as_they_are(name: str, pre: tuple[str, ...]) -> None:
    rows = np.tile([1.5, -2.0, 0.0], (11, 1))
    assert rule(name, 2, pre=pre)(rows) == pytest.approx([1.5, -2.0, 0.0], abs=1e-12)


def test_every_rule_of_the_catalogue_is_held_against_something() -> None:
    votes = {name for name, entry in STRATEGIES.items() if "liars" in entry.settings.__dataclass_fields__}
    assert votes == {*SLOW, "centered-clipping", "norm-bound"}
