"""Batches go through all records before they take one again."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.learning.batches import batches


@given(count=st.integers(1, 60), size=st.integers(1, 70), steps=st.integers(0, 40), seed=st.integers(0, 9))
def test_every_epoch_takes_each_record_once(count: int, size: int, steps: int, seed: int):
    """Must: so many steps, no batch beyond its size. Must not: take a record again before all others had their turn."""
    dealt = batches(count, size, steps, np.random.default_rng(seed))
    epoch = -(-count // size)
    assert len(dealt) == steps
    assert all(1 <= len(one) <= size for one in dealt)
    for start in range(0, steps - epoch + 1, epoch):
        taken = np.concatenate(dealt[start : start + epoch])
        assert sorted(taken) == list(range(count))
    rest = [row for one in dealt[steps - steps % epoch :] for row in one]
    assert max(Counter(rest).values(), default=1) == 1


def test_no_records_make_no_batches():
    """Must not: loop for ever, or take a record that is not there."""
    assert batches(0, 4, 5, np.random.default_rng(0)) == ()


def test_epochs_are_shuffled_anew():
    """Must not: show the records in one order again and again."""
    first, second = batches(50, 50, 2, np.random.default_rng(0))
    assert list(first) != list(second)
