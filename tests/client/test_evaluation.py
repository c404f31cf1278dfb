"""Counts over held-out records: each record in one cell, whatever its score."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

import client.evaluation
from client.evaluation import counts
from client.trainer import Workbench
from common.data import Records
from common.learning.plan import TrainingPlan
from common.metrics import Counts, CountShape
from common.models.catalogue import build
from common.privacy.clipping.opacus_engine import OpacusEngine


def bench_of(classes: int) -> Workbench:
    plan = TrainingPlan(learning_rate=1.0)
    model = build("logistic", inputs=(3,), classes=classes, seed=1)
    return Workbench(model, plan.task(classes), plan, torch.device("cpu"), OpacusEngine())


def records(count: int, classes: int, groups: int) -> Records:
    draw = np.random.default_rng(4)
    return Records(
        torch.tensor(draw.normal(size=(count, 3)), dtype=torch.float32),
        torch.tensor(draw.integers(0, classes, count)),
        torch.tensor(draw.integers(0, groups, count)),
        tuple(bytes(16) for _ in range(count)),
    )


@pytest.mark.parametrize(("classes", "bins"), [(2, 2), (2, 10), (4, 4)])
def test_every_record_is_counted_once_in_its_group_label_and_bin(classes: int, bins: int) -> None:
    bench, held = bench_of(classes), records(300, classes, 3)
    shape = CountShape(groups=3, classes=classes, bins=bins)
    lanes = counts(bench, held, shape)
    assert lanes.dtype == np.int64
    assert lanes.sum() == 300
    with torch.no_grad():
        binned = shape.bin_of(bench.task.scores(bench.model(held.inputs)))
    by_hand = Counter(zip(held.groups.tolist(), held.labels.tolist(), binned.tolist(), strict=True))
    table = Counts.from_lanes(shape, lanes).table
    assert all(table[cell] == number for cell, number in by_hand.items())


def test_parts_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, held, shape = bench_of(2), records(101, 2, 1), CountShape(groups=1, classes=2, bins=4)
    whole = counts(bench, held, shape)
    monkeypatch.setattr(client.evaluation, "AT_ONCE", 7)
    assert np.array_equal(counts(bench, held, shape), whole)
    assert not counts(bench, held.take([]), shape).any()


def test_one_record_moves_the_counts_by_one() -> None:
    bench, held, shape = bench_of(2), records(30, 2, 2), CountShape(groups=2, classes=2, bins=6)
    whole = counts(bench, held, shape)
    for left_out in range(30):
        rest = counts(bench, held.take([i for i in range(30) if i != left_out]), shape)
        assert np.abs(whole - rest).sum() == 1


def test_a_score_that_is_not_finite_still_counts_its_record() -> None:
    bench, held, shape = bench_of(2), records(5, 2, 1), CountShape(groups=1, classes=2, bins=2)
    held.inputs[:] = float("nan")
    table = Counts.from_lanes(shape, counts(bench, held, shape)).table
    assert table.sum() == 5
    assert table[:, :, 1].sum() == 0
