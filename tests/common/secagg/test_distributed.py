"""Distributed noise: bounded before it is noised, noised at every site, exact in the sum but for wrapped lanes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.randomness import ReplayEntropy
from common.secagg import distributed
from common.secagg.distributed import DistributedCodec
from common.secagg.masks import lift, reduce
from common.secagg.rotation import Rotation

SEED = b"public seed of a round"
PLAIN = {"metrics": 0, "metric_share": 0.0, "noise": "discrete-gaussian", "sigma": 2.0, "sites_max": 20}


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def codec_of(**settings) -> DistributedCodec:
    return DistributedCodec(**(PLAIN | {"dimension": 300, "bits": 24, "clip": 1.0, "scale": 5000.0} | settings))


def vectors(sites: int, dimension: int, norm: float) -> np.ndarray:
    drawn = np.random.default_rng(sites).normal(size=(sites, dimension))
    return drawn * norm / np.linalg.norm(drawn, axis=1, keepdims=True)


def summed(codec, *encoded):
    total = codec.ring.zeros()
    for each in encoded:
        total += each.lanes
    return codec.open_sum(reduce(codec.ring, total), len(encoded))


@given(
    bits=st.sampled_from([16, 20, 24, 28, 32]),
    noise=st.sampled_from(["discrete-gaussian", "skellam"]),
    dimension=st.integers(1, 2000),
    sites=st.integers(1, 5),
)
def test_a_sum_is_the_sum_of_clipped_vectors_up_to_noise_and_rounding(bits, noise, dimension, sites):
    codec = codec_of(bits=bits, noise=noise, dimension=dimension, clip=2.0, scale=1000.0, sigma=5.0)
    contributions = vectors(sites, dimension, 3.0)
    encoded = [codec.encode(x, SEED, ReplayEntropy(bits, site)) for site, x in enumerate(contributions)]
    total = codec.total(summed(codec, *encoded), SEED)
    deviation = math.sqrt(sites * (25 + 0.25)) / 1000
    apart = total - contributions.sum(axis=0) * 2 / 3
    assert np.abs(apart).max() < 7 * deviation
    if dimension > 500:
        assert apart.std() == pytest.approx(deviation, rel=0.25)


def test_before_noise_no_site_exceeds_the_norm_and_shorter_vectors_keep_their_length(monkeypatch):
    monkeypatch.setattr(DistributedCodec, "_noise", lambda self, entropy: np.zeros(self.rotation.lanes, np.int64))
    for scale in (3.0, 40.0, 5000.0):
        codec = codec_of(scale=scale, dimension=1000)
        for norm in (0.0, 0.2, 1.0, 5.0, 1e300):
            drawn = vectors(1, 1000, 1.0)[0] * norm
            integers = lift(codec.ring, codec.encode(drawn, SEED, ReplayEntropy(1)).lanes)[: codec.rotation.lanes]
            length = math.sqrt(sum(int(x) ** 2 for x in integers))
            assert length <= codec.norm
            assert length == pytest.approx(scale * min(norm, 1.0), abs=math.sqrt(1024))


def test_every_lane_of_every_site_is_noised_afresh():
    codec = codec_of(sigma=100.0)
    one, two = (lift(codec.ring, codec.encode(np.zeros(300), SEED, ReplayEntropy(n)).lanes)[:512] for n in (1, 2))
    for lanes in (one, two, (one - two) / math.sqrt(2)):
        assert lanes.std() == pytest.approx(100.0, rel=0.15)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.2


def test_the_count_and_canaries_are_exact_whatever_wraps():
    """Must: tell a spoiled sum although values wrap. Must not: noise the check lanes."""
    codec = codec_of(bits=16, sigma=30_000.0)
    encoded = [codec.encode(np.zeros(300), SEED, ReplayEntropy(site)) for site in range(9)]
    total = codec.ring.zeros()
    for each in encoded:
        total += each.lanes
    assert codec.open_sum(reduce(codec.ring, total), 9).count == 9
    with refused(Code.E_SUM_CHECK):
        codec.open_sum(total, 8)
    for lane in range(codec.rotation.lanes, codec.ring.lanes):
        spoiled = total.copy()
        spoiled[lane] += 1
        with refused(Code.E_SUM_CHECK):
            codec.open_sum(spoiled, 9)


def test_weights_and_metrics_ride_along_under_the_same_noise():
    codec = codec_of(metrics=2, metric_share=0.1, scale=1e6)
    weights, scores, drawn = (1.0, 0.5), ((0.25, 1.0), (0.75, 0.0)), vectors(2, 300, 1.0)
    encoded = [
        codec.encode(x, SEED, ReplayEntropy(4, w), weight=w, metrics=m)
        for x, w, m in zip(drawn, weights, scores, strict=True)
    ]
    opened = summed(codec, *encoded)
    assert codec.metric_totals(opened, SEED) == pytest.approx([0.25 + 0.375, 1.0], abs=1e-3)
    np.testing.assert_allclose(codec.total(opened, SEED), drawn[0] + drawn[1] / 2, atol=1e-4)
    assert codec.bound == pytest.approx(math.sqrt(1.02))
    loud = codec.encode(drawn[0] * 1e6, SEED, ReplayEntropy(5), metrics=(1.0, 1.0))
    assert codec.metric_totals(summed(codec, loud), SEED) == pytest.approx([1.0, 1.0], abs=1e-3)


def test_without_metrics_there_are_no_metric_totals():
    codec = codec_of()
    opened = summed(codec, codec.encode(np.zeros(300), SEED, ReplayEntropy(1)))
    assert codec.metric_totals(opened, SEED).size == 0


def test_a_total_read_with_another_seed_is_not_the_sum():
    codec, x = codec_of(), vectors(1, 300, 1.0)[0]
    opened = summed(codec, codec.encode(x, SEED, ReplayEntropy(1)))
    assert abs(codec.total(opened, b"another") @ x) < 0.4


def test_lanes_wrap_as_rarely_as_their_deviation_says_and_are_off_by_a_whole_turn():
    sites, lanes = 6, 1 << 16
    codec = codec_of(bits=16, dimension=lanes, sigma=4096.0, scale=100.0)
    opened = summed(codec, *(codec.encode(np.zeros(lanes), SEED, ReplayEntropy(site)) for site in range(sites)))
    noise = sum(distributed.discrete_gaussian(4096.0, lanes, after_rounding(site)) for site in range(sites))
    wrapped = opened.values != noise
    expected = lanes * math.erfc(2**15 / (4096 * math.sqrt(sites)) / math.sqrt(2))
    assert wrapped.sum() == pytest.approx(expected, abs=6 * math.sqrt(expected))
    assert set((noise - opened.values)[wrapped].tolist()) == {-(2**16), 2**16}


def after_rounding(site: int) -> ReplayEntropy:
    entropy = ReplayEntropy(site)
    entropy.words(1 << 14)
    return entropy


@pytest.mark.parametrize(
    "contribution", [{"weight": -0.1}, {"weight": 1.1}, {"weight": math.nan}, {"metrics": ()}, {"metrics": (1.5,)}]
)
def test_weights_and_metrics_outside_their_range_are_refused(contribution):
    codec = codec_of(metrics=1, metric_share=0.1)
    with refused(Code.E_RANGE):
        codec.encode(np.zeros(300), SEED, ReplayEntropy(1), **({"metrics": (0.5,)} | contribution))


def test_vectors_that_are_not_finite_or_of_another_length_are_refused():
    for vector in (np.full(300, np.nan), np.full(300, np.inf), np.zeros(299), np.zeros((300, 1))):
        with refused(Code.UPDATE_INVALID):
            codec_of().encode(vector, SEED, ReplayEntropy(1))


@pytest.mark.parametrize(
    "settings",
    [
        {"clip": 0.0},
        {"scale": math.inf},
        {"scale": 2.0**30 * 1.01},
        {"sigma": 0.0},
        {"sigma": math.nan},
        {"noise": "gaussian"},
        {"metric_share": 0.1},
        {"metrics": 1},
        {"metrics": -1, "metric_share": 0.1},
        {"dimension": 0},
        {"bits": 16, "sites_max": 2**15},
    ],
)
def test_codecs_that_cannot_work_are_refused(settings):
    with refused(Code.E_RANGE):
        codec_of(**settings)


def test_the_rotation_covers_vector_and_metrics():
    assert codec_of(dimension=512, metrics=1, metric_share=0.1).rotation == Rotation(513)


def test_the_distance_of_its_noise_counts_every_lane():
    for noise in ("discrete-gaussian", "skellam"):
        one, two = (codec_of(noise=noise, dimension=n).sampler_distance for n in (512, 1024))
        assert 0 < one < 1e-30
        assert two == pytest.approx(2 * one)
