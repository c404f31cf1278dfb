"""Whole rounds of secure aggregation in process: the sum is exact, whatever dropped out and whoever restarted."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as altered

from client.secagg import mask, unmask
from common.errors import Code, Refusal
from common.privacy.distributed import SiteMechanism
from common.randomness import ReplayEntropy
from common.secagg import IntegerCodec, RangeCodec, Rules
from common.secagg.statements import sign_report, sign_total
from server.secagg import Collecting
from tests.secagg_federation import Federation, digest, signer


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


@settings(max_examples=40)
@given(data=st.data())
def test_the_sum_is_bit_exact_for_any_sites_ring_and_drop_outs(data):
    """Must: the integers' own sum, at the edges of the range and off every block size too."""
    count = data.draw(st.integers(2, 12), "sites")
    unmaskers = data.draw(st.integers(2, count), "unmasking sites")
    bits = data.draw(st.sampled_from([16, 20, 24, 28, 32]), "bits")
    dimension = data.draw(st.sampled_from([1, 2, 3, 5, 64, 1001]), "dimension")
    suite = data.draw(st.sampled_from([1, 2]), "suite")
    rules = Rules(
        unmaskers_min=unmaskers, quorum_min=2, orgs_min=1, sites_max=16, corrupt_max=1, overlap_min=1, suite=suite
    )
    codec = IntegerCodec(dimension=dimension, sites_max=16, bits=bits)
    federation = Federation.open(count, rules=rules, codec=codec, numbers=1)
    present = data.draw(st.sets(st.integers(1, count), min_size=2), "reporting sites")
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32), "vectors"))
    aggregation = federation.aggregation()
    state, expected = Collecting.open(aggregation, federation.manifest.ids), np.zeros(dimension, np.int64)
    for site in data.draw(st.permutations(sorted(present)), "order of arrival"):
        vector = draw.choice([-codec.limit, -1, 0, 1, codec.limit], dimension)
        expected += vector
        state = state.receive(site, federation.report(site, aggregation, vector))
    opened = federation.opened(state.close())
    assert opened.count == len(present)
    np.testing.assert_array_equal(opened.values, expected)


def test_a_vector_of_several_blocks_is_summed_exactly():
    codec = IntegerCodec(dimension=150_001, sites_max=16, bits=24)
    federation = Federation.open(3, codec=codec)
    assert (federation.opened(federation.collected()).values == 6).all()


def test_a_round_takes_the_coordinator_fewer_than_three_vectors_of_memory():
    """Reports are added on arrival: the sum, the one that is being read, and nothing that grows with the cohort."""
    codec = IntegerCodec(dimension=400_000, sites_max=16, bits=24)
    federation = Federation.open(8, codec=codec)
    aggregation, reports = federation.aggregation(), iter(federation.manifest.ids)
    state, most = Collecting.open(aggregation, federation.manifest.ids), 0
    for site in reports:
        report = federation.report(site, aggregation)
        federation.reports.clear()
        tracemalloc.start()
        state = state.receive(site, report)
        most = max(most, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    vector = 4 * codec.ring.lanes
    assert most + vector < 3 * vector  # the sum itself was there before


def test_weighted_means_come_out_within_a_rounding_step():
    codec = RangeCodec(dimension=50, bits=24, sites_max=16, bound=1.0, weight_cap=100, metrics=1)
    federation = Federation.open(4, codec=codec)
    aggregation = federation.aggregation()
    state = Collecting.open(aggregation, federation.manifest.ids)
    vectors = np.random.default_rng(0).uniform(-1, 1, (4, 50))
    for site, records in zip(range(1, 5), (10, 20, 30, 400), strict=True):
        encoded = codec.encode(vectors[site - 1], ReplayEntropy(1, site), records=records, metrics=(site / 4,))
        state = state.receive(site, mask(federation.stores[site], aggregation, federation.keys(), encoded))
    opened = federation.opened(state.close())
    weights = np.array([0.1, 0.2, 0.3, 1.0])
    assert codec.weight(opened) == pytest.approx(weights.sum(), abs=4 / codec.steps)
    np.testing.assert_allclose(codec.mean(opened), weights @ vectors / weights.sum(), atol=4 / codec.steps)
    assert codec.metric_means(opened)[0] == pytest.approx(weights @ np.arange(1, 5) / 4 / weights.sum(), abs=1e-4)


def test_distributed_noise_crosses_masks_and_a_lost_site_leaves_enough_of_it():
    """Five sites, one never answers: the four that do add at least the noise that was accounted for."""
    mechanism = SiteMechanism(
        noise="skellam",
        dimension=3000,
        metrics=1,
        metric_share=0.2,
        clip=1.0,
        bits=20,
        sites_max=16,
        quorum=4,
        colluding=1,
        noise_multiplier=2.0,
    )
    codec = mechanism.codec
    federation = Federation.open(5, codec=codec)
    aggregation = federation.aggregation()
    state, seed = Collecting.open(aggregation, federation.manifest.ids), aggregation.context
    vectors = np.random.default_rng(2).normal(size=(5, 3000))
    for site in (1, 2, 3, 5):
        encoded = codec.encode(vectors[site - 1], seed, ReplayEntropy(3, site), metrics=(0.5,))
        state = state.receive(site, mask(federation.stores[site], aggregation, federation.keys(), encoded))
    opened = federation.opened(state.close())
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    noise = codec.total(opened, seed) - (vectors / lengths)[[0, 1, 2, 4]].sum(axis=0)
    assert noise.std() == pytest.approx(mechanism.local_deviation * 2, rel=0.1)
    assert noise.std() > 2.0 * mechanism.bound
    assert codec.metric_totals(opened, seed)[0] == pytest.approx(2.0, abs=6 * mechanism.local_deviation * 2 / 0.2)


def test_a_site_that_dies_after_its_report_is_in_the_sum_and_one_that_never_answers_costs_nothing():
    federation = Federation.open(5)
    state = federation.collected(sites=[1, 2, 4, 5])
    unmasking = set(federation.session.unmaskers)
    for dead in {4, 5} - unmasking:
        federation.stores[dead].close()
    assert federation.opened(state).values[0] == 12


def test_below_the_quorum_the_round_is_dropped_and_nobody_is_asked_to_unmask():
    federation = Federation.open(4)
    state = Collecting.open(federation.aggregation(), [1, 2, 3])
    state = state.receive(1, federation.report(1, federation.aggregation()))
    with refused(Code.E_TOO_FEW):
        state.close()


def test_a_lost_unmasking_site_ends_the_round_and_opens_nothing():
    federation = Federation.open(4)
    state = federation.collected()
    first = federation.session.unmaskers[0]
    state = state.receive(first, unmask(federation.stores[first], state.aggregation, state.members(first)))
    with refused(Code.E_HELPER_LOST):
        state.open(federation.codec)


def reported(federation: Federation):
    aggregation = federation.aggregation()
    return Collecting.open(aggregation, [1, 2, 3]), federation.report(1, aggregation)


SPOILED = [
    ("another vector", Code.E_SIG, lambda r: altered(r, body=bytes(len(r.body)))),
    ("another one-time key", Code.E_SIG, lambda r: altered(r, exchange=bytes(32))),
    ("ciphertexts swapped", Code.E_SIG, lambda r: altered(r, ciphertexts=r.ciphertexts[::-1])),
    ("a ciphertext missing", Code.E_KEY, lambda r: altered(r, ciphertexts=r.ciphertexts[1:])),
    ("another number", Code.E_ROUND, lambda r: altered(r, number=1)),
    ("another site's name", Code.E_SET, lambda r: altered(r, site=2)),
]


@pytest.mark.parametrize(("code", "spoil"), [case[1:] for case in SPOILED], ids=[case[0] for case in SPOILED])
def test_a_spoiled_report_is_refused_and_adds_nothing(code, spoil):
    federation = Federation.open(3)
    state, report = reported(federation)
    with refused(code):
        state.receive(1, spoil(report))
    state = state.receive(1, report)
    for site in (2, 3):
        state = state.receive(site, federation.report(site, federation.aggregation()))
    assert federation.opened(state.close()).values[0] == 6


def test_a_key_of_small_order_is_refused_though_its_site_signed_it():
    """Unmasking sites refuse the whole set for it: one site would stop every round, and they would be blamed."""
    federation = Federation.open(3)
    state, report = reported(federation)
    context = state.aggregation.context
    with refused(Code.E_KEY):
        state.receive(1, sign_report(signer(1), context, altered(report, exchange=bytes(32))))
    assert federation.opened(state.receive(1, report).receive(2, federation.report(2, state.aggregation)).close())


def test_a_report_of_a_wrong_length_is_refused_though_its_site_signed_it():
    federation = Federation.open(3)
    state, report = reported(federation)
    short = sign_report(signer(1), federation.aggregation().context, altered(report, body=report.body[:-4]))
    with refused(Code.MESSAGE_INVALID):
        state.receive(1, short)
    assert state.receive(1, report).missing == {2, 3}


def test_a_report_for_another_model_cannot_be_added():
    """Model inconsistency (Pasquini et al. 2022): the sum of a round is over one model or not at all."""
    federation = Federation.open(3)
    state, _ = reported(federation)
    with refused(Code.E_SIG):
        state.receive(2, federation.report(2, federation.aggregation(binding=digest("a model of its own"))))


def test_a_report_of_an_earlier_number_cannot_be_replayed():
    federation = Federation.open(3)
    _, report = reported(federation)
    state = Collecting.open(federation.aggregation(1), federation.manifest.ids)
    with refused(Code.E_SIG):
        state.receive(1, altered(report, number=1))


def test_a_second_report_and_a_stranger_are_refused():
    federation = Federation.open(4)
    state, report = reported(federation)
    state = state.receive(1, report)
    with refused(Code.E_DUP):
        state.receive(1, report)
    with refused(Code.E_SET):
        state.receive(4, federation.report(4, federation.aggregation()))


def test_a_state_that_was_left_behind_cannot_be_continued():
    federation = Federation.open(3)
    state, report = reported(federation)
    state.receive(1, report)
    with refused(Code.E_ROUND):
        state.receive(2, federation.report(2, federation.aggregation()))


def test_masks_of_another_set_or_a_second_time_or_unsigned_are_refused():
    federation = Federation.open(3)
    state = federation.collected()
    site = federation.session.unmaskers[0]
    total = unmask(federation.stores[site], state.aggregation, state.members(site))
    for code, spoiled in (
        (Code.E_SET, altered(total, set_digest=bytes(32))),
        (Code.E_SIG, altered(total, body=bytes(len(total.body)))),
        (Code.E_ROUND, altered(total, number=1)),
        (Code.E_POLICY, altered(total, unmasker=99)),
    ):
        with refused(code):
            state.receive(site, spoiled)
    state = state.receive(site, total)
    with refused(Code.E_DUP):
        state.receive(site, total)


def test_a_lying_unmasking_site_spoils_the_sum_and_is_found_out():
    """Must: refuse the sum. Must not: hand out noise as a result."""
    federation = Federation.open(3)
    state = federation.collected()
    liar, honest = federation.session.unmaskers
    total = unmask(federation.stores[liar], state.aggregation, state.members(liar))
    forged = sign_total(signer(liar), state.aggregation.context, altered(total, body=bytes(len(total.body))))
    other = unmask(federation.stores[honest], state.aggregation, state.members(honest))
    with refused(Code.E_SUM_CHECK):
        state.unmask([forged, other], federation.codec)
