"""Whole attempts by pairwise masks in process: the survivors' exact sum, whoever is lost and at whichever stage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.secagg import mask
from common.errors import Code, Refusal
from common.randomness import ReplayEntropy
from common.secagg import IntegerCodec, RangeCodec, Rules
from common.secagg.masks import unpack
from common.secagg.pairwise.strength import exposure
from common.secagg.statements import check_session
from common.secagg.wire import SessionRecord
from server.secagg import Collecting
from tests.pairwise_federation import RULES, PairFederation
from tests.secagg_federation import JOB, Federation
from tests.server.chi_square import chi_square

STAGES = ("advertise", "deal", "mask", "agree", "reveal")


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


@settings(max_examples=30)
@given(data=st.data())
def test_the_sum_is_bit_exact_for_any_sites_ring_and_drop_outs_at_any_stage(data):
    """Must: the integers' own sum of those that masked, at the edges of the range and off every block size too."""
    count = data.draw(st.integers(3, 12), "sites")
    corrupt = data.draw(st.integers(0, (count - 1) // 3), "corrupt sites")
    quorum = (count + corrupt) // 2 + 1
    bits = data.draw(st.sampled_from([16, 20, 24, 28, 32]), "bits")
    dimension = data.draw(st.sampled_from([1, 3, 64, 1001]), "dimension")
    rules = replace(RULES, unmaskers_min=corrupt + 2, corrupt_max=corrupt, suite=data.draw(st.sampled_from([1, 2])))
    codec = IntegerCodec(dimension=dimension, sites_max=16, bits=bits)
    federation = PairFederation.open(count, quorum, rules=rules, codec=codec)
    gone = data.draw(st.permutations(range(1, count + 1)), "lost sites")[: count - quorum]
    stages = {site: data.draw(st.sampled_from(STAGES), f"stage at which {site} is lost") for site in gone}
    lost = {name: [site for site, stage in stages.items() if stage == name] for name in STAGES}
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32), "vectors"))
    vectors = {site: draw.choice([-codec.limit, -1, 0, 1, codec.limit], dimension) for site in range(1, count + 1)}
    encoded = {site: codec.encode(vector) for site, vector in vectors.items()}
    revealing = federation.losing(**lost).played(federation.attempt(), encoded)
    survivors = [site for site in vectors if stages.get(site) not in ("advertise", "deal", "mask")]
    assert list(revealing.survivors) == survivors
    opened = revealing.open(codec)
    assert opened.count == len(survivors)
    np.testing.assert_array_equal(opened.values, sum(vectors[site] for site in survivors))


def test_in_a_sparse_graph_the_sum_is_exact_with_a_tenth_lost_over_all_stages():
    rules = Rules(unmaskers_min=8, quorum_min=2, orgs_min=1, sites_max=300, corrupt_max=7, overlap_min=0)
    federation = PairFederation.open(140, 126, rules=rules, codec=IntegerCodec(dimension=5, sites_max=300))
    attempt = federation.attempt()
    assert attempt.shape.degree < 80
    lost = {stage: range(20 + 3 * place, 23 + 3 * place) for place, stage in enumerate(STAGES)}
    lost["reveal"] = range(32, 34)
    revealing = federation.losing(**lost).played(attempt)
    assert set(revealing.survivors) == set(range(1, 141)) - set(range(20, 29))
    assert revealing.open(federation.codec).values[0] == sum(revealing.survivors)


def test_a_manifest_for_pairwise_masks_alone_counts_on_more_corrupt_sites_than_a_session_has_unmasking_ones():
    """Must: 80 of 240 corrupt, with the graph that this takes. Must not: serve sessions of unmasking sites."""
    rules = Rules(unmaskers_min=0, quorum_min=2, orgs_min=1, sites_max=300, corrupt_max=80, overlap_min=0, suite=1)
    federation = PairFederation.open(240, 230, rules=rules, codec=IntegerCodec(dimension=5, sites_max=300))
    few = replace(rules, unmaskers_min=8, corrupt_max=7)
    less = PairFederation.open(240, 230, rules=few, codec=federation.codec).attempt().shape
    attempt = federation.attempt()
    assert (attempt.shape.degree, attempt.shape.threshold) > (less.degree, less.threshold)
    assert exposure(240, 80, attempt.shape) <= -40
    site = SessionRecord(
        sid=bytes(32), manifest=federation.manifest.digest, job=JOB, unmaskers=(1, 2), first=0, count=1, suite=1
    )
    with pytest.raises(Refusal, match="only pairwise masks"):
        check_session(federation.manifest, site)


@pytest.mark.parametrize("suite", [1, 2])
def test_both_protocols_open_the_same_sum_bit_for_bit(suite):
    """The same vectors, rounding bits and survivors: nothing of the protocol is left in the sum."""
    codec = RangeCodec(dimension=1003, bits=24, sites_max=16, bound=1.0, weight_cap=100, metrics=1)
    vectors = np.random.default_rng(0).uniform(-1.2, 1.2, (6, 1003))

    def encoded(site: int):
        return codec.encode(vectors[site - 1], ReplayEntropy(1, site), records=10 * site, metrics=(site / 6,))

    late = Federation.open(6, codec=codec, rules=Rules(
        unmaskers_min=2, quorum_min=2, orgs_min=1, sites_max=16, corrupt_max=1, overlap_min=1, suite=suite
    ))  # fmt: skip
    collecting = Collecting.open(late.aggregation(), late.manifest.ids)
    for site in (1, 2, 4, 6):
        collecting = collecting.receive(site, mask(late.stores[site], late.aggregation(), late.keys(), encoded(site)))
    pairs = PairFederation.open(6, 4, rules=replace(RULES, suite=suite), codec=codec)
    revealing = pairs.losing(deal=[3], mask=[5]).played(pairs.attempt(), {site: encoded(site) for site in range(1, 7)})
    one, other = late.opened(collecting.close()), revealing.open(codec)
    assert one.count == other.count == 4
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.extras, other.extras)


def test_below_the_threshold_nothing_is_opened_at_any_stage():
    for stage in STAGES:
        federation = PairFederation.open(5, 4)
        with refused(Code.E_TOO_FEW):
            federation.losing(**{stage: [1, 2]}).played(federation.attempt()).open(federation.codec)


def test_too_few_organisations_are_too_few_sites():
    rules = replace(RULES, quorum_min=4, orgs_min=4)
    federation = PairFederation.open(5, 4, rules=rules, orgs={1: "trust", 2: "trust"})
    assert federation.sum().count == 5
    with refused(Code.E_TOO_FEW):
        federation.losing(mask=[5]).played(federation.attempt(1))


def test_a_second_attempt_in_the_same_session_has_masks_of_its_own():
    federation = PairFederation.open(5, 4)
    first = federation.dealt(federation.advertised(federation.attempt(0)))
    one = federation.body(1, first)
    federation.sum(1)
    second = federation.dealt(federation.advertised(federation.attempt(2)))
    assert federation.body(1, second) != one


WIDE = IntegerCodec(dimension=20_000, sites_max=16, bits=24)


def test_a_masked_vector_looks_uniform_and_so_does_every_partial_sum():
    federation = PairFederation.open(5, 4, codec=WIDE)
    masking = federation.dealt(federation.advertised(federation.attempt()))
    total = WIDE.ring.zeros()
    for site in federation.manifest.ids:
        lanes = unpack(WIDE.ring, federation.body(site, masking))
        assert chi_square(lanes[: WIDE.dimension]) < 400
        total = (total + lanes) & 0xFFFFFF
        assert chi_square(total[: WIDE.dimension]) < 400


def test_with_shares_of_all_own_masks_but_one_the_sum_stays_uniform():
    federation = PairFederation.open(5, 4, codec=WIDE)
    revealing = federation.played(federation.attempt())
    kept = {holder: {d: s for d, s in shares.items() if d != 2} for holder, shares in revealing.shares.items()}
    starved = replace(revealing, shares=kept)
    with refused(Code.E_TOO_FEW):
        starved.open(WIDE)
    blind = dict(starved.rebuilt) | {2: bytes(32)}
    starved.__dict__["rebuilt"] = blind
    with refused(Code.E_SUM_CHECK):
        starved.open(WIDE)


def test_memory_of_the_coordinator_holds_one_vector_whatever_the_cohort():
    federation = PairFederation.open(6, 5, codec=WIDE)
    agreeing = federation.masked(federation.dealt(federation.advertised(federation.attempt())))
    assert agreeing.before.masked == frozenset(range(1, 7))
    assert not any(isinstance(value, bytes | np.ndarray) for value in vars(agreeing.before).values())
