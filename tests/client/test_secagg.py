"""What a site refuses, as a reporter and as an unmasking site, whatever the coordinator asks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as altered

from client.secagg import enrol, mask, unmask
from common.errors import Code, Refusal
from common.secagg import IntegerCodec, Rules, record_digest
from common.secagg.statements import member_of, sign_keys, sign_report
from tests.secagg_federation import RULES, Federation, digest, signer

OTHER = bytes([9] * 32)


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


# Enrolment


def test_the_same_enrolment_gives_the_same_keys_until_one_is_used():
    federation = Federation.open(3)
    site = federation.session.unmaskers[0]
    again = enrol(federation.stores[site], federation.manifest, federation.session)
    assert again == federation.opening.received[site]
    federation.opened(federation.collected())
    with refused(Code.E_ROUND):
        enrol(federation.stores[site], federation.manifest, federation.session)


SESSIONS = [
    ("of another manifest", Code.E_MANIFEST, lambda s: altered(s, manifest=OTHER)),
    ("with the weaker suite", Code.E_POLICY, lambda s: altered(s, suite=1)),
    ("with one unmasking site", Code.E_POLICY, lambda s: altered(s, unmaskers=s.unmaskers[:1])),
    ("with one unmasking site twice", Code.E_POLICY, lambda s: altered(s, unmaskers=s.unmaskers[:1] * 2)),
    ("with a stranger", Code.E_POLICY, lambda s: altered(s, unmaskers=(s.unmaskers[0], 99))),
    ("with too many numbers", Code.E_POLICY, lambda s: altered(s, count=65)),
    ("first seen with another record", Code.E_POLICY, lambda s: altered(s, job=OTHER)),
    ("with more numbers than first said", Code.E_POLICY, lambda s: altered(s, count=5)),
]


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in SESSIONS], ids=[case[0] for case in SESSIONS])
def test_a_session_outside_the_rules_is_refused(code, change):
    federation = Federation.open(3)
    site = federation.session.unmaskers[0]
    with refused(code):
        enrol(federation.stores[site], federation.manifest, change(federation.session))


def test_only_sites_that_the_session_names_enrol():
    federation = Federation.open(3)
    other = next(site for site in federation.manifest.ids if site not in federation.session.unmaskers)
    with refused(Code.E_POLICY):
        enrol(federation.stores[other], federation.manifest, altered(federation.session, sid=OTHER))


def test_a_site_that_the_manifest_does_not_name_takes_no_part():
    federation = Federation.open(3)
    federation.stores[1].identity = signer("stranger")
    with refused(Code.E_MANIFEST):
        federation.report(1, federation.aggregation())


# Reporting


def test_no_number_is_masked_twice_nor_after_a_larger_one():
    federation = Federation.open(3)
    federation.report(1, federation.aggregation(1))
    for number in (1, 0):
        with refused(Code.E_ROUND):
            federation.report(1, federation.aggregation(number))
    federation.report(1, federation.aggregation(2))


def test_numbers_outside_the_session_are_refused():
    federation = Federation.open(3)
    for number in (4, 2**62):
        with refused(Code.E_ROUND):
            federation.aggregation(number)


KEYS = [
    ("none", Code.E_KEY, lambda keys: ()),
    ("one missing", Code.E_KEY, lambda keys: keys[:1]),
    ("another order", Code.E_KEY, lambda keys: keys[::-1]),
    ("one twice", Code.E_KEY, lambda keys: (keys[0], keys[0])),
    ("of another number", Code.E_KEY, lambda keys: tuple(altered(key, number=1) for key in keys)),
    ("without ML-KEM", Code.E_KEY, lambda keys: tuple(altered(key, kem=None) for key in keys)),
    ("another key, same signature", Code.E_SIG, lambda keys: (altered(keys[0], exchange=OTHER), keys[1])),
    ("signed by another", Code.E_SIG, lambda keys: (altered(keys[0], signature=keys[1].signature), keys[1])),
]


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in KEYS], ids=[case[0] for case in KEYS])
def test_round_keys_that_are_not_exactly_the_sessions_are_refused_and_no_number_is_lost(code, change):
    federation = Federation.open(3)
    aggregation, codec = federation.aggregation(), federation.codec
    with refused(code):
        mask(federation.stores[1], aggregation, change(federation.keys()), codec.encode(np.ones(9, np.int64)))
    assert federation.report(1, aggregation).number == 0


def test_a_signed_key_of_small_order_is_refused():
    """All-zero Diffie-Hellman: a corrupt unmasking site that makes its mask key public."""
    federation = Federation.open(3, rules=replace(RULES, suite=1))
    keys = list(federation.keys())
    for site, weak in ((1, bytes(32)), (2, bytes([1]) + bytes(31))):
        forged = sign_keys(signer(keys[0].unmasker), federation.session, altered(keys[0], exchange=weak))
        encoded = federation.codec.encode(np.ones(9, np.int64))
        with refused(Code.E_KEY):
            mask(federation.stores[site], federation.aggregation(), (forged, keys[1]), encoded)


def test_a_vector_of_another_ring_is_refused():
    federation = Federation.open(3)
    encoded = IntegerCodec(dimension=10**3, sites_max=16).encode(np.ones(10**3, np.int64))
    with refused(Code.E_RANGE):
        mask(federation.stores[1], federation.aggregation(), federation.keys(), encoded)


def test_masking_overwrites_the_vector_and_prints_nothing_of_it():
    federation = Federation.open(3)
    encoded = federation.codec.encode(np.full(9, 1234567))
    assert "1234567" not in repr(encoded)
    mask(federation.stores[1], federation.aggregation(), federation.keys(), encoded)
    assert 1234567 not in encoded.lanes


# Unmasking


def asked(federation: Federation, **options):
    state = federation.collected(**options)
    site = federation.session.unmaskers[0]
    return federation.stores[site], state.aggregation, state.members(site)


def test_the_same_set_gets_the_same_bytes_and_a_second_set_is_refused():
    """Must: answer a repeated question. Must not: answer two questions under one number."""
    store, aggregation, members = asked(Federation.open(4))
    total = unmask(store, aggregation, members)
    assert unmask(store, aggregation, members) == total
    for second in (members[:-1], members[1:], members[:2]):
        with refused(Code.E_SET):
            unmask(store, aggregation, second)
    assert unmask(store, aggregation, members) == total


def test_a_refused_set_uses_nothing_up():
    store, aggregation, members = asked(Federation.open(4))
    with refused(Code.E_SET):
        unmask(store, aggregation, members[:1])
    assert unmask(store, aggregation, members).unmasker in aggregation.session.unmaskers


SETS = [
    ("one report", Code.E_SET, lambda members: members[:1]),
    ("empty", Code.E_SET, lambda members: ()),
    ("out of order", Code.E_SET, lambda members: members[::-1]),
    ("an id twice", Code.E_DUP, lambda members: (members[0], *members)),
    ("an unknown id", Code.E_MANIFEST, lambda members: (*members, altered(members[0], site=99))),
    ("a forged signature", Code.E_SIG, lambda members: (altered(members[0], signature=bytes(64)), *members[1:])),
    ("another's signature", Code.E_SIG, lambda m: (altered(m[0], signature=m[1].signature), *m[1:])),
    ("another one-time key", Code.E_SIG, lambda members: (altered(members[0], exchange=OTHER), *members[1:])),
    ("another vector", Code.E_SIG, lambda members: (altered(members[0], body_digest=OTHER), *members[1:])),
    ("another's report under its name", Code.E_SIG, lambda m: (m[0], altered(m[2], site=m[1].site), m[2])),
    ("another ciphertext", Code.E_KEY, lambda m: (altered(m[0], ciphertext=m[1].ciphertext), *m[1:])),
    ("no ciphertext", Code.E_KEY, lambda members: (altered(members[0], ciphertext=None), *members[1:])),
    ("too few digests", Code.E_KEY, lambda m: (altered(m[0], ciphertext_digests=m[0].ciphertext_digests[:1]), *m[1:])),
]


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in SETS], ids=[case[0] for case in SETS])
def test_a_set_that_is_not_whole_and_signed_is_refused(code, change):
    store, aggregation, members = asked(Federation.open(3))
    with refused(code):
        unmask(store, aggregation, change(members))
    assert store.answered(aggregation.session.sid, 0) is None


def test_a_set_of_too_few_organisations_is_refused():
    federation = Federation.open(4, rules=replace(RULES, orgs_min=2), orgs={1: "trust", 2: "trust"})
    store, aggregation, members = asked(federation)
    with refused(Code.E_SET):
        unmask(store, aggregation, members[:2])
    unmask(store, aggregation, members[1:3])


def test_reports_of_two_models_cannot_be_unmasked_together():
    federation = Federation.open(4)
    store, aggregation, members = asked(federation, sites=[1, 2, 3])
    other = federation.aggregation(binding=digest("another model"))
    report = federation.report(4, other)
    foreign = member_of(report, federation.session.unmaskers.index(federation.session.unmaskers[0]))
    with refused(Code.E_SIG):
        unmask(store, aggregation, (*members, foreign))


def test_a_site_that_trained_one_model_does_not_unmask_another():
    """Model inconsistency: an unmasking site that reported knows what the round was about."""
    federation = Federation.open(4)
    site = federation.session.unmaskers[0]
    federation.report(site, federation.aggregation())
    others = [other for other in federation.manifest.ids if other != site]
    state = federation.collected(sites=others, binding=digest("another model"))
    with refused(Code.E_MODEL):
        unmask(federation.stores[site], state.aggregation, state.members(site))


def test_one_binding_is_opened_once_in_any_session():
    federation = Federation.open(4)
    federation.opened(federation.collected(binding=digest("model")))
    for later, number in ((federation, 1), (None, 0)):
        later = later or federation.again(OTHER)
        state = later.collected(number, binding=digest("model"))
        site = later.session.unmaskers[0]
        with refused(Code.E_MODEL):
            unmask(later.stores[site], state.aggregation, state.members(site))


def test_a_round_that_nobody_answered_may_be_repeated():
    federation = Federation.open(4)
    federation.collected(binding=digest("model"))
    assert federation.opened(federation.collected(1, binding=digest("model"))).count == 4


def test_sets_that_differ_in_too_few_sites_are_refused():
    """Difference of two rounds (So et al. 2023): with overlap_min = 2 no one site is left over, in any session."""
    federation = Federation.open(5, rules=replace(RULES, overlap_min=2))
    federation.opened(federation.collected(0))
    federation.opened(federation.collected(1))
    for later in (federation, None):
        later = later or federation.again(OTHER)
        state = later.collected(2, sites=[1, 2, 3, 4])
        site = later.session.unmaskers[0]
        with refused(Code.E_SET):
            unmask(later.stores[site], state.aggregation, state.members(site))
    assert later.opened(later.collected(3, sites=[1, 2, 3])).count == 3


def test_a_number_whose_seed_is_erased_is_not_unmasked():
    federation = Federation.open(3)
    earlier = federation.collected(0)
    federation.opened(federation.collected(1))
    site = federation.session.unmaskers[0]
    with refused(Code.E_ROUND):
        unmask(federation.stores[site], earlier.aggregation, earlier.members(site))


def test_a_site_that_the_session_does_not_name_unmasks_nothing():
    federation = Federation.open(4)
    state = federation.collected()
    other = next(site for site in federation.manifest.ids if site not in federation.session.unmaskers)
    with refused(Code.E_ROUND):
        unmask(federation.stores[other], state.aggregation, state.members(federation.session.unmaskers[0]))


def test_a_signed_report_with_a_key_of_small_order_is_refused_and_not_answered():
    federation = Federation.open(3)
    store, aggregation, members = asked(federation)
    weak = altered(federation.reports[1], exchange=bytes(32))
    member = member_of(sign_report(signer(1), aggregation.context, weak), 0)
    with refused(Code.E_KEY):
        unmask(store, aggregation, (member, *members[1:]))
    unmask(store, aggregation, members)


def test_a_refusal_carries_a_code_and_no_secret():
    store, aggregation, members = asked(Federation.open(3))
    seed = store.seed(aggregation.session.sid, 0)
    with pytest.raises(Refusal) as caught:
        unmask(store, aggregation, members[:1])
    assert seed.reveal().hex() not in str(caught.value)
    assert repr(seed) == "RoundSeed"
    assert record_digest(aggregation.session).hex() not in repr(store)


def test_rules_of_the_manifest_and_not_the_coordinator_set_the_quorum():
    rules = Rules(unmaskers_min=2, quorum_min=4, orgs_min=1, sites_max=16, corrupt_max=1, overlap_min=0)
    store, aggregation, members = asked(Federation.open(5, rules=rules))
    with refused(Code.E_SET):
        unmask(store, aggregation, members[:3])
