"""Ranges: sums that overflow, and weights that are clipped away, while the round reports success."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.secagg import mask, unmask
from common.errors import Code
from common.randomness import ReplayEntropy
from common.secagg import IntegerCodec, RangeCodec, Rules
from server.secagg import Collecting
from simulations.bench.flower_round import Relay, play
from tests.attacks.opponents import flower_sites, refused, updates
from tests.secagg_federation import Federation


def test_on_flower_a_sum_of_weights_overflows_and_the_round_is_a_success():
    """Modulus overflow (a warning at the site, secaggplus_mod): of 1200 times max_weight, 1024 vanish mod 2^32."""
    vectors = updates(4) / 100
    relay = Relay(flower_sites(vectors, [300_000] * 4))
    outcome = play(relay, 4, 3)
    assert (outcome.stopped, relay.errors) == (None, [])
    true = vectors.mean(axis=0)
    assert outcome.mean @ true / (true @ true) == pytest.approx(1200 / (1200 - 1024), rel=1e-2)


def test_on_flower_a_heavy_site_is_clipped_after_it_was_weighted():
    """Silent clipping after weighting: two sites agree on 0.5, the mean comes out as 0.4."""
    halves = np.full((2, 10), 0.5, np.float32)
    relay = Relay(flower_sites(halves, [20_000, 20_000]))
    outcome = play(relay, 1.0, 1.0)
    assert (outcome.stopped, relay.errors) == (None, [])
    np.testing.assert_allclose(outcome.mean, 0.4, atol=1e-3)


BITS = st.sampled_from([16, 20, 24, 28, 32])


@settings(max_examples=25)
@given(bits=BITS, sites=st.integers(2, 8), sign=st.sampled_from([-1, 1]), records=st.sampled_from([1, 9, 10, 10**6]))
def test_the_largest_cohort_at_the_largest_values_sums_exactly(bits, sites, sign, records):
    """Modulus overflow: n_max sites, all values at or beyond the bound, any weight, through a whole round."""
    rules = Rules(unmaskers_min=2, quorum_min=2, orgs_min=1, sites_max=sites, corrupt_max=1, overlap_min=1, suite=1)
    codec = RangeCodec(dimension=5, bits=bits, sites_max=sites, bound=0.25, weight_cap=10)
    federation = Federation.open(sites, rules=rules, codec=codec, numbers=1)
    aggregation = federation.aggregation()
    state, expected = Collecting.open(aggregation, federation.manifest.ids), np.zeros(5, np.int64)
    for site in federation.manifest.ids:
        vector = sign * np.array([0.25, 1e30, 0.2500001, 3.0, 0.25])
        encoded = codec.encode(vector, ReplayEntropy(site, "range"), records=records)
        alone = codec.encode(vector, ReplayEntropy(site, "range"), records=records)
        expected += codec.open_sum(alone.lanes, 1).values
        state = state.receive(site, mask(federation.stores[site], aggregation, federation.keys(), encoded))
    opened = federation.opened(state.close())
    np.testing.assert_array_equal(opened.values, expected)
    if records >= 10:  # a full weight: exactly the bound, n_max times
        np.testing.assert_allclose(codec.total(opened), sign * 0.25 * sites)


def test_a_heavy_site_weighs_its_cap_and_loses_nothing_of_its_values():
    """Silent clipping after weighting: 20 times the usual weight, and the mean of two that agree is what they said."""
    codec = RangeCodec(dimension=10, bits=32, sites_max=4, bound=1.0, weight_cap=20_000)
    federation = Federation.open(2, codec=codec)
    state = Collecting.open(federation.aggregation(), federation.manifest.ids)
    for site, records in ((1, 20_000), (2, 1_000)):
        encoded = codec.encode(np.full(10, 0.5), ReplayEntropy(site, "heavy"), records=records)
        state = state.receive(site, mask(federation.stores[site], federation.aggregation(), federation.keys(), encoded))
    np.testing.assert_allclose(codec.mean(federation.opened(state.close())), 0.5, atol=1e-7)


def test_what_does_not_fit_is_refused_before_it_is_masked():
    codec = IntegerCodec(dimension=3, sites_max=16, bits=24)
    for vector in ([codec.limit + 1, 0, 0], [0, -codec.limit - 1, 0]):
        with refused(Code.E_RANGE):
            codec.encode(np.array(vector))


def test_a_set_of_more_sites_than_the_ring_was_made_for_is_not_opened():
    """Modulus overflow by a larger cohort: the manifest's n_max is what the ring was chosen by."""
    federation = Federation.open(5, codec=IntegerCodec(dimension=9, sites_max=5))
    state = federation.collected()
    few = Rules(unmaskers_min=2, quorum_min=2, orgs_min=1, sites_max=4, corrupt_max=1, overlap_min=1)
    object.__setattr__(federation.manifest, "rules", few)  # no honest manifest names more sites than its n_max
    for site in federation.session.unmaskers:
        with refused(Code.E_SET):
            unmask(federation.stores[site], state.aggregation, state.members(site))
    with refused(Code.E_SET):
        Collecting.open(state.aggregation, federation.manifest.ids)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_reach_the_ring(wrong):
    codec = RangeCodec(dimension=4, bits=24, sites_max=4, bound=1.0)
    for place in range(4):
        vector = np.zeros(4)
        vector[place] = wrong
        with refused(Code.UPDATE_INVALID):
            codec.encode(vector, ReplayEntropy(1, "finite"))
