"""What a site refuses in an attempt by pairwise masks, whatever the coordinator asks and in whatever order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec.structs import replace as altered

from client.pairing import Pairing
from common.errors import Code, Refusal
from common.secagg.pairwise.attempt import sign_keys
from common.secagg.pairwise.keys import Secrets
from tests.pairwise_federation import PairFederation
from tests.secagg_federation import digest, signer


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


@pytest.fixture
def federation() -> PairFederation:
    return PairFederation.open(5, 4)


def dealing(federation: PairFederation):
    state = federation.advertised(federation.attempt())
    return state, federation.place(state.attempt)


def test_a_number_is_used_once_also_across_restarts(federation):
    attempt = federation.attempt(1)
    site = federation.sites[1]
    site.advertise(attempt, federation.encoded(1))
    for again in (site, Pairing(federation.stores[1])):
        for number in (1, 0):
            with refused(Code.E_ROUND):
                again.advertise(federation.attempt(number), federation.encoded(1))
    site.advertise(federation.attempt(2), federation.encoded(1))


def test_a_session_with_another_record_under_a_known_name_is_refused(federation):
    federation.sites[1].advertise(federation.attempt(), federation.encoded(1))
    federation.session = altered(federation.session, job=digest("another job"))
    with refused(Code.E_POLICY):
        federation.sites[1].advertise(federation.attempt(1), federation.encoded(1))


def test_a_site_that_was_not_asked_and_a_vector_of_another_ring_are_refused_and_use_nothing_up(federation):
    with refused(Code.E_SET):
        federation.sites[5].advertise(federation.attempt(cohort=(1, 2, 3, 4)), federation.encoded(5))
    other = PairFederation.open(5, 4, codec=replace(federation.codec, bits=24))
    with refused(Code.E_RANGE):
        federation.sites[1].advertise(federation.attempt(), other.encoded(1))
    federation.sites[1].advertise(federation.attempt(), federation.encoded(1))


def test_every_attempt_has_fresh_secrets(federation):
    first = federation.sites[1].advertise(federation.attempt(0), federation.encoded(1))
    second = federation.sites[1].advertise(federation.attempt(1), federation.encoded(1))
    for name in ("exchange", "kem", "box_exchange", "box_kem", "seed", "self_digest"):
        assert getattr(first, name) != getattr(second, name)


def stranger(federation: PairFederation, state):
    """Keys that the coordinator made for itself, signed by nobody of the cohort."""
    keys = Secrets.generate().keys(state.attempt.context, 2, 0, bytes(32), 2)
    return sign_keys(signer("coordinator"), state.attempt, keys)


PEERS = [
    ("one of the coordinator's own keys", Code.E_SIG, lambda f, s, p: (stranger(f, s), *p[1:])),
    ("keys of two sites swapped", Code.E_SIG, lambda f, s, p: (altered(p[1], site=2), altered(p[0], site=3), *p[2:])),
    ("a key of an earlier attempt", Code.E_SIG, lambda f, s, p: (replayed(f), *p[1:])),
    ("an unknown id", Code.E_SET, lambda f, s, p: (*p, altered(p[0], site=99))),
    ("a peer twice", Code.E_SET, lambda f, s, p: (p[0], *p)),
    ("its own keys", Code.E_SET, lambda f, s, p: (s.keys[1], *p)),
    ("peers out of order", Code.E_SET, lambda f, s, p: p[::-1]),
    ("too few peers", Code.E_TOO_FEW, lambda f, s, p: p[:2]),
    ("a small-order key", Code.E_KEY, lambda f, s, p: (weak(s, p[0]), *p[1:])),
]


def replayed(federation: PairFederation):
    attempt = federation.attempt(binding=digest("an earlier model"))
    keys = Secrets.generate().keys(attempt.context, 2, 0, bytes(32), 2)
    return sign_keys(signer(2), attempt, keys)


def weak(state, keys):
    return sign_keys(signer(keys.site), state.attempt, altered(keys, box_exchange=bytes(32)))


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in PEERS], ids=[case[0] for case in PEERS])
def test_shares_are_dealt_only_to_signed_keys_of_enough_peers(federation, code, change):
    """Keys swapped on the way: the attack that opens Flower's SecAgg+ (its server relays unsigned keys)."""
    state, place = dealing(federation)
    with refused(code):
        federation.sites[1].deal(*place, change(federation, state, state.peers(1)))
    assert len(federation.sites[1].deal(*place, state.peers(1))) == 4


def test_shares_are_dealt_once(federation):
    state, place = dealing(federation)
    federation.sites[1].deal(*place, state.peers(1))
    for peers in (state.peers(1), state.peers(1)[1:]):
        with refused(Code.E_ROUND):
            federation.sites[1].deal(*place, peers)


MASKS = [
    ("too few that dealt", Code.E_TOO_FEW, lambda d, p: (d[:2], p[:2])),
    ("an unknown one", Code.E_SET, lambda d, p: ((*d, 99), p)),
    ("one twice", Code.E_SET, lambda d, p: ((*d[:-1], *d[-2:]), p)),
    ("a parcel missing", Code.E_SET, lambda d, p: (d, p[1:])),
    ("a parcel for another", Code.E_SET, lambda d, p: (d, (altered(p[0], holder=2), *p[1:]))),
    ("parcels swapped", Code.E_SET, lambda d, p: (d, p[::-1])),
    ("a lock missing", Code.E_KEY, lambda d, p: (d, (altered(p[0], lock=None), *p[1:]))),
    ("a ciphertext missing", Code.E_KEY, lambda d, p: (d, (altered(p[0], ciphertext=None), *p[1:]))),
]


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in MASKS], ids=[case[0] for case in MASKS])
def test_a_vector_is_masked_only_with_enough_peers_that_dealt_and_a_refusal_masks_nothing(federation, code, change):
    state = federation.dealt(federation.advertised(federation.attempt()))
    place = federation.place(federation.attempt())
    dealt, parcels = state.masks(5), state.incoming(5)
    with refused(code):
        federation.sites[5].mask(*place, *change(dealt, parcels))
    agreeing = federation.masked(state)
    assert federation.revealed(federation.agreed(agreeing)).open(federation.codec).values[0] == 15


def test_a_vector_is_masked_once(federation):
    state = federation.dealt(federation.advertised(federation.attempt()))
    federation.body(1, state)
    with refused(Code.E_ROUND):
        federation.body(1, state)


def test_a_parcel_spoiled_on_the_way_costs_its_dealer_one_holder_and_nobody_the_sum(federation):
    state = federation.dealt(federation.advertised(federation.attempt()))
    place = federation.place(federation.attempt())
    parcels = state.incoming(1)
    spoiled = (altered(parcels[0], body=bytes(82)), *parcels[1:])
    state = state.receive(1, federation.sites[1].mask(*place, state.masks(1), spoiled))
    for site in (2, 3, 4, 5):
        state = state.receive(site, federation.body(site, state))
    revealing = federation.revealed(federation.agreed(state.close()))
    assert 2 not in revealing.shares[1]
    assert revealing.open(federation.codec).values[0] == 15
