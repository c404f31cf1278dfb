"""Codecs: unbiased, never out of their ring, and a sum is a sum only if its check lanes say so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.randomness import ReplayEntropy
from common.secagg.codec import CANARIES, IntegerCodec, RangeCodec, stochastic_round
from common.secagg.masks import lift, reduce

ENTROPY = ReplayEntropy(3, "codec")


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def added(codec, *encoded):
    total = codec.ring.zeros()
    for each in encoded:
        total += each.lanes
    return reduce(codec.ring, total)


@given(
    bits=st.sampled_from([16, 20, 24, 28, 32]),
    sites=st.integers(2, 1000),
    sign=st.sampled_from([-1, 1]),
    records=st.sampled_from([None, 1.0, 10.0, 1e9]),
)
def test_the_largest_values_of_all_sites_cannot_overflow(bits, sites, sign, records):
    codec = RangeCodec(dimension=3, bits=bits, sites_max=sites, bound=0.5, weight_cap=10)
    one = codec.encode(np.full(3, sign * 1e30), ENTROPY, records=records)
    highest = np.abs(lift(codec.ring, one.lanes)).max()
    assert highest <= max(codec.steps, 1)
    assert sites * codec.steps < 2 ** (bits - 1)


def test_values_beyond_the_bound_are_clamped_before_they_are_weighted():
    codec = RangeCodec(dimension=2, bits=32, sites_max=2, bound=2.0, weight_cap=4)
    one = codec.encode(np.array([100.0, -100.0]), ENTROPY, records=1)
    np.testing.assert_allclose(codec.total(codec.open_sum(added(codec, one), 1)), [0.5, -0.5], atol=1e-8)


def test_the_largest_floats_are_clamped_without_a_word():
    codec = RangeCodec(dimension=2, bits=24, sites_max=4, bound=0.5)
    with np.errstate(all="raise"):
        one = codec.encode(np.array([1.7e308, -1.7e308]), ENTROPY)
    np.testing.assert_allclose(codec.mean(codec.open_sum(added(codec, one), 1)), [0.5, -0.5])


def test_rounding_is_unbiased():
    """|bias| < 1e-3 of a step over 10^7 values; 1e-3 is six standard errors."""
    for value in (0.3, -0.3, 1e-3, 0.5):
        mean = np.mean([stochastic_round(np.full(10**6, value), ENTROPY).mean() for _ in range(10)])
        assert abs(mean - value) < 1e-3


@pytest.mark.parametrize("bits", [16, 20, 24, 28, 32])
def test_encoding_is_unbiased_at_every_width(bits):
    codec = RangeCodec(dimension=10**6, bits=bits, sites_max=100, bound=1.0, weight_cap=3)
    value = (min(codec.steps // 2, 40) + 0.3) / codec.steps
    lanes = codec.encode(np.full(10**6, 3 * value), ENTROPY, records=1).lanes
    mean = lift(codec.ring, lanes)[: 10**6].mean()
    assert abs(mean - value * codec.steps) < 3e-3


def test_rounding_leaves_integers_alone_and_moves_others_to_a_neighbour():
    values = np.array([-3.0, 0.0, 7.0, 2.5, -2.5])
    for _ in range(50):
        rounded = stochastic_round(values, ENTROPY)
        assert rounded[:3].tolist() == [-3, 0, 7]
        assert rounded[3] in (2, 3)
        assert rounded[4] in (-3, -2)


@pytest.mark.parametrize(("sites", "narrow"), [(2, False), (1000, True)])
def test_a_vector_of_several_blocks_is_encoded_within_a_step(sites, narrow):
    codec = RangeCodec(dimension=150_001, bits=24, sites_max=sites, bound=0.3, weight_cap=3)
    assert (codec.steps < 2**15) is narrow
    values = np.random.default_rng(3).uniform(-0.3, 0.3, codec.dimension).astype(np.float32)
    opened = codec.open_sum(added(codec, codec.encode(values, ENTROPY, records=2.0)), 1)
    assert np.abs(codec.total(opened) - values * np.float64(2 / 3)).max() <= 0.3 / codec.steps * 1.0001


def test_integer_weights_give_the_exact_weighted_mean_within_the_rounding():
    codec = RangeCodec(dimension=100, bits=32, sites_max=10, bound=1.0, weight_cap=10, metrics=2)
    draw = np.random.default_rng(1)
    vectors, weights = draw.uniform(-1, 1, (10, 100)), np.arange(1, 11)
    encoded = [
        codec.encode(vector, ENTROPY, records=weight, metrics=(0.25, weight / 10))
        for vector, weight in zip(vectors, weights, strict=True)
    ]
    opened = codec.open_sum(added(codec, *encoded), 10)
    step = 1 / codec.steps
    assert codec.weight(opened) == pytest.approx(5.5, abs=10 * step)
    np.testing.assert_allclose(codec.mean(opened), weights @ vectors / 55, atol=5 * step)
    expected = (0.25, (weights**2).sum() / 550)
    assert codec.metric_means(opened) == pytest.approx(expected, abs=10 * step)


@pytest.mark.parametrize(("bits", "sites"), [(16, 20), (20, 20), (24, 100), (28, 50), (32, 50)])
def test_rounding_blurs_a_weighted_mean_by_less_than_half_a_step_times_the_root_of_the_sites(bits, sites):
    """Must: hold the exact weighted mean within step·√n / 2, root mean square. Must not: be biased."""
    codec = RangeCodec(dimension=4000, bits=bits, sites_max=sites, bound=0.1, weight_cap=sites)
    draw = np.random.default_rng(bits)
    vectors, weights = draw.uniform(-0.1, 0.1, (sites, 4000)), np.arange(1.0, sites + 1)
    encoded = (codec.encode(each, ENTROPY, records=n) for each, n in zip(vectors, weights, strict=True))
    summed = codec.open_sum(added(codec, *encoded), sites)
    allowed = 0.1 / codec.steps * np.sqrt(sites) / 2
    apart = codec.total(summed) - weights @ vectors / sites
    assert np.sqrt(np.mean(apart**2)) <= allowed
    assert abs(apart.mean()) <= 6 * allowed / np.sqrt(4000)
    assert codec.records(summed) == pytest.approx(weights.sum(), abs=6 * sites / codec.steps * np.sqrt(sites) / 2)
    apart = (codec.mean(summed) - weights @ vectors / weights.sum()) * codec.weight(summed)
    assert np.sqrt(np.mean(apart**2)) <= 2 * allowed  # the sum of weights is rounded as well


def test_a_sum_tells_record_counts_and_metrics_of_no_single_site():
    codec = RangeCodec(dimension=2, bits=32, sites_max=4, bound=1.0, weight_cap=1000, metrics=1)
    sizes, scores = (100, 250, 5000), (0.5, 1.0, 0.25)
    encoded = [codec.encode(np.zeros(2), ENTROPY, records=n, metrics=(x,)) for n, x in zip(sizes, scores, strict=True)]
    summed = codec.open_sum(added(codec, *encoded), 3)
    assert codec.records(summed) == pytest.approx(100 + 250 + 1000, abs=1e-4)
    assert codec.metric_means(summed)[0] == pytest.approx((50 + 250 + 250) / 1350, abs=1e-6)
    assert summed.extras.size == 2


@pytest.mark.parametrize("lane", [0, 1, 3, 4])
def test_a_sum_that_these_reports_cannot_have_is_refused(lane):
    codec = RangeCodec(dimension=2, bits=24, sites_max=8, bound=1.0, metrics=1)
    total = added(codec, *(codec.encode(np.ones(2), ENTROPY, metrics=(1.0,)) for _ in range(3)))
    codec.open_sum(total, 3)
    total[lane] += 1
    with refused(Code.E_SUM_CHECK):
        codec.open_sum(total, 3)


@pytest.mark.parametrize("lane", [3, 4])
def test_a_sum_of_weights_or_metrics_below_zero_is_refused(lane):
    codec = RangeCodec(dimension=2, bits=24, sites_max=8, bound=1.0, metrics=1)
    total = added(codec, *(codec.encode(np.ones(2), ENTROPY, records=0.0, metrics=(1.0,)) for _ in range(3)))
    codec.open_sum(total, 3)
    total[lane : lane + 1] -= 1
    with refused(Code.E_SUM_CHECK):
        codec.open_sum(total, 3)


def test_more_reports_than_the_codec_was_made_for_are_refused():
    codec = RangeCodec(dimension=1, bits=24, sites_max=2, bound=1.0)
    total = added(codec, *(codec.encode(np.zeros(1), ENTROPY) for _ in range(3)))
    with refused(Code.E_SUM_CHECK):
        codec.open_sum(total, 3)


def test_a_mean_over_no_weight_is_refused():
    codec = RangeCodec(dimension=1, bits=24, sites_max=4, bound=1.0)
    opened = codec.open_sum(added(codec, *(codec.encode(np.ones(1), ENTROPY, records=0.0) for _ in range(2))), 2)
    with refused(Code.E_SUM_CHECK):
        codec.mean(opened)


@given(st.lists(st.integers(-214_000_000, 214_000_000), min_size=1, max_size=30), st.integers(1, 10))
def test_integers_sum_exactly(integers, sites):
    codec = IntegerCodec(dimension=len(integers), sites_max=10)
    vector = np.array(integers, np.int64)
    opened = codec.open_sum(added(codec, *(codec.encode(vector) for _ in range(sites))), sites)
    assert opened.values.tolist() == (vector * sites).tolist()
    assert opened.count == sites


def test_integers_whose_sum_could_overflow_are_refused():
    codec = IntegerCodec(dimension=2, sites_max=100)
    codec.encode(np.array([codec.limit, -codec.limit]))
    for vector in ([codec.limit + 1, 0], [0, -codec.limit - 1], [2**62, 0], [-(2**63), 0]):
        with refused(Code.E_RANGE):
            codec.encode(np.array(vector))
    with refused(Code.E_RANGE):
        codec.encode(np.array([0.5, 1.0]))


@pytest.mark.parametrize(
    "codec", [IntegerCodec(dimension=6, sites_max=8), IntegerCodec(dimension=7, sites_max=8, bits=20)]
)
def test_one_wrong_check_lane_refuses_the_sum(codec):
    one, two = (codec.encode(np.arange(codec.dimension)) for _ in range(2))
    total = added(codec, one, two)
    for wrong in (1, 3):
        with refused(Code.E_SUM_CHECK):
            codec.open_sum(total, wrong)
    assert codec.ring.lanes >= codec.dimension + 1 + CANARIES
    for lane in range(codec.dimension, codec.ring.lanes):
        spoiled = total.copy()
        spoiled[lane] += 1
        with refused(Code.E_SUM_CHECK):
            codec.open_sum(spoiled, 2)


def test_vectors_that_are_not_finite_or_of_another_length_are_refused():
    codec = RangeCodec(dimension=2, bits=24, sites_max=4, bound=1.0)
    for vector in ([np.nan, 0.0], [np.inf, 0.0], [1.0], [[1.0, 2.0]]):
        with refused(Code.UPDATE_INVALID):
            codec.encode(np.array(vector), ENTROPY)
    with refused(Code.UPDATE_INVALID):
        IntegerCodec(dimension=2, sites_max=4).encode(np.arange(3))


@pytest.mark.parametrize(
    "contribution", [{"records": -1.0}, {"records": np.nan}, {"metrics": ()}, {"metrics": (1.5,)}, {"metrics": (-0.1,)}]
)
def test_weights_and_metrics_outside_their_range_are_refused(contribution):
    codec = RangeCodec(dimension=2, bits=24, sites_max=4, bound=1.0, metrics=1)
    with refused(Code.E_RANGE):
        codec.encode(np.ones(2), ENTROPY, **({"metrics": (0.5,)} | contribution))


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": 17},
        {"bits": 16, "sites_max": 2**15},
        {"bound": 0.0},
        {"bound": np.inf},
        {"weight_cap": 0.0},
        {"dimension": 0},
    ],
)
def test_codecs_that_cannot_work_are_refused(settings):
    with refused(Code.E_RANGE):
        RangeCodec(**({"dimension": 3, "bits": 24, "sites_max": 10, "bound": 1.0} | settings)).ring  # noqa: B018


def test_an_encoded_vector_does_not_print():
    assert "777" not in repr(IntegerCodec(dimension=1, sites_max=2).encode(np.array([777])))
