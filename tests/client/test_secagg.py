"""What a site refuses, as a reporter and as an unmasking site, whatever the coordinator asks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as altered

from client.secagg import enrol, mask
from common.errors import Code, Refusal
from common.secagg import IntegerCodec
from common.secagg.statements import sign_keys
from tests.secagg_federation import RULES, Federation, signer

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
