"""Measures that merge: parts add up to the whole, and undefined stays undefined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from common.errors import Refusal
from common.learning.tasks import task
from common.metrics import Counts, CountShape, Mean

BINARY = CountShape(groups=3, classes=2, bins=10)
MANY = CountShape(groups=2, classes=4, bins=4)
rows = some.lists(
    some.tuples(some.floats(0, 1, width=32), some.integers(0, 1), some.integers(0, 2), some.integers(0, 2)), max_size=40
)


def counted(found: list[tuple[float, int, int, int]], shape: CountShape = BINARY) -> Counts:
    scores = torch.tensor([[1 - row[0], row[0]] for row in found]).reshape(-1, 2)
    return Counts.of(shape, scores, torch.tensor([r[1] for r in found]), torch.tensor([r[2] for r in found]))


@given(rows)
def test_counts_of_three_sites_in_any_order_are_the_central_counts(found: list[tuple[float, int, int, int]]) -> None:
    sites = [counted([row for row in found if row[3] == site]) for site in range(3)]
    central = counted(found).table
    assert np.array_equal(((sites[0] + sites[1]) + sites[2]).table, central)
    assert np.array_equal((sites[2] + (sites[1] + sites[0])).table, central)
    assert np.array_equal((Counts.zero(BINARY) + counted(found)).table, central)


@given(rows)
def test_rates_by_group_equal_those_computed_from_the_records(found: list[tuple[float, int, int, int]]) -> None:
    for group, rates in enumerate(counted(found).by_group()):
        mine = [(score > 0.5, label == 1) for score, label, cell, _ in found if cell == group]
        assert rates.n == len(mine)
        assert rates.accuracy == (sum(a == b for a, b in mine) / len(mine) if mine else None)
        positive = [a for a, b in mine if b]
        assert rates.true_positive_rate == (sum(positive) / len(positive) if positive else None)


@given(some.lists(some.integers(-(2**40), 2**40), min_size=MANY.lanes, max_size=MANY.lanes))
def test_lanes_come_back_as_the_same_counts(lanes: list[int]) -> None:
    assert Counts.from_lanes(MANY, np.array(lanes)).to_lanes().tolist() == lanes


def test_one_record_moves_one_cell_by_one() -> None:
    assert counted([(0.7, 1, 2, 0)]).to_lanes().sum() == 1
    assert counted([(0.7, 1, 2, 0)]).table[2, 1, 6] == 1


def test_several_classes_are_counted_by_their_prediction() -> None:
    scores = torch.eye(4)[[0, 1, 2, 2]]
    counts = Counts.of(MANY, scores, torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 1, 1]))
    assert counts.accuracy() == 0.75
    assert counts.by_group()[1].accuracy == 0.5
    assert counts.by_group()[1].true_positive_rate is None


@pytest.mark.parametrize("bins", [2, 6, 10, 64])
def test_counts_and_the_task_agree_on_every_logit_around_the_threshold(bins: int) -> None:
    logits = torch.tensor([0.0, 1e-9, -1e-9, 1e-7, -1e-7, 1e-3, -1e-3, 50.0, -50.0])[:, None]
    shape = CountShape(groups=1, classes=2, bins=bins)
    labels = torch.ones(len(logits), dtype=torch.int64)
    right = task(2).correct(logits, labels).sum()
    found = Counts.of(shape, task(2).scores(logits), labels, torch.zeros_like(labels)).accuracy()
    assert found == pytest.approx(float(right) / len(logits))


def test_what_is_undefined_is_none_and_noise_may_make_cells_negative() -> None:
    assert Mean().value is None
    assert Counts.zero(BINARY).accuracy() is None
    noisy = Counts.from_lanes(BINARY, np.full(BINARY.lanes, -1))
    assert noisy.accuracy() is None
    assert noisy.by_group()[0].selection_rate is None


@given(some.lists(some.tuples(some.integers(-100, 100), some.integers(0, 9)), max_size=10))
def test_means_merge_in_any_order(parts: list[tuple[int, int]]) -> None:
    means = [Mean(float(total), float(weight)) for total, weight in parts]
    assert sum(means, Mean()) == sum(reversed(means), Mean())


def test_another_threshold_must_be_an_edge_of_a_bin() -> None:
    counts = counted([(0.25, 1, 0, 0), (0.95, 1, 0, 0)])
    assert counts.accuracy(0.2) == 1.0
    with pytest.raises(Refusal, match="no edge"):
        counts.accuracy(0.55)


def test_counts_of_different_shapes_are_not_added() -> None:
    with pytest.raises(Refusal, match="shapes differ"):
        Counts.zero(BINARY) + Counts.zero(MANY)
    with pytest.raises(Refusal, match="expected"):
        Counts.from_lanes(BINARY, np.zeros(3, np.int64))
    with pytest.raises(Refusal, match="even number"):
        CountShape(groups=1, classes=2, bins=5)
