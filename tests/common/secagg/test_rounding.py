"""Rounding under a norm: never exceeded, in exact integers, and still unbiased where the norm leaves room."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.randomness import ReplayEntropy
from common.secagg.rounding import TRIES, clipped, round_within, rounded_norm, stochastic_round


class Parts:
    """A stream that repeats one 16-bit part, and counts how many words were read."""

    kind = "replay"

    def __init__(self, part: int):
        self.part, self.read = part, 0

    def bytes(self, count: int) -> bytes:
        return self.words(-(-count // 8)).tobytes()[:count]

    def words(self, count: int) -> np.ndarray:
        self.read += count
        return np.full(count, self.part * 0x0001_0001_0001_0001, np.uint64)


@given(st.integers(1, 400), st.floats(0.01, 1e5), st.integers(0, 10**6))
def test_the_norm_is_never_exceeded(lanes, norm, seed):
    vector = np.random.default_rng(seed).normal(size=lanes)
    vector *= norm / np.linalg.norm(vector)
    most = rounded_norm(norm, lanes)
    integers = round_within(vector, most, ReplayEntropy(seed))
    assert sum(int(x) ** 2 for x in integers) <= most**2
    assert np.abs(integers - vector).max() < 1


@pytest.mark.parametrize("norm", [1.5, 2.0, 3.7])
def test_the_norm_is_never_exceeded_where_most_roundings_would(norm):
    """Forty values of 0.3: a rounding of them has norm 3.5 on average. All are refused, tried again, or cut to 0."""
    vector, seen = np.full(40, norm / math.sqrt(40)), set()
    for seed in range(300):
        integers = round_within(vector, norm, ReplayEntropy(seed, "tight"))
        assert (integers**2).sum() <= norm**2
        seen.add(int((integers**2).sum()))
    assert max(seen) == math.floor(norm**2)


def test_what_cannot_be_rounded_within_the_norm_is_rounded_towards_zero():
    always_up = Parts(0xFFFF)
    vector = np.array([0.4, 0.4, 0.4, 0.4, -0.4, 2.0])
    assert round_within(vector, 2.5, always_up).tolist() == [0, 0, 0, 0, 0, 2]
    assert always_up.read == 2 * TRIES
    assert round_within(vector, 3.0, Parts(0xFFFF)).tolist() == [1, 1, 1, 1, 0, 2]


def test_a_vector_longer_than_its_norm_is_refused_not_cut():
    for vector, norm in (([3.0, 4.0], 4.99), ([1e150, 1e150], 10.0), ([1.0], 2.0**31 * 1.01), ([0.0], math.nan)):
        with pytest.raises(Refusal, check=lambda error: error.code is Code.UPDATE_INVALID):
            round_within(np.array(vector), norm, ReplayEntropy(1))


@pytest.mark.parametrize(("norm", "lanes"), [(0.5, 1), (10.0, 100), (1000.0, 2**16), (30.0, 2**20)])
def test_at_least_two_of_five_roundings_keep_the_rounded_norm(norm, lanes):
    """Theorem: 1 - e^(-1/2) = 0.39 of them, for every vector of that norm."""
    flat = np.full(lanes, norm / math.sqrt(lanes))
    entropy = ReplayEntropy(3, norm)
    kept = [np.linalg.norm(stochastic_round(flat, entropy)) <= rounded_norm(norm, lanes) for _ in range(30)]
    assert sum(kept) >= 12
    assert norm < rounded_norm(norm, lanes) <= norm + math.sqrt(lanes)


def test_with_room_in_the_norm_rounding_is_unbiased():
    vector = np.random.default_rng(1).normal(size=2000)
    norm = rounded_norm(np.linalg.norm(vector), 2000)
    entropy = ReplayEntropy(8)
    mean = np.mean([round_within(vector, norm, entropy) for _ in range(400)], axis=0)
    assert np.sqrt(np.mean((mean - vector) ** 2)) < 0.5 / math.sqrt(400)
    assert abs((mean - vector).mean()) < 6 * 0.5 / math.sqrt(400 * 2000)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20), st.floats(1e-3, 1e6))
def test_clipping_keeps_the_bound_for_every_finite_vector(values, bound):
    vector = np.array(values)
    short = clipped(vector, bound)
    assert math.hypot(*short) <= bound * (1 + 1e-12)
    if math.hypot(*values) <= bound * (1 - 1e-12):
        assert np.array_equal(short, vector)
    else:
        peak = np.abs(vector).max()
        np.testing.assert_allclose(short / math.hypot(*short), vector / peak / math.hypot(*(vector / peak)), atol=1e-9)
