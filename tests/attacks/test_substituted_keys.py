"""Substituted keys: whoever relays public keys puts its own in their place."""

from __future__ import annotations

import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_separate
from flwr.supercore.primitives.asymmetric import generate_key_pairs, private_key_to_bytes, public_key_to_bytes
from msgspec.structs import replace as altered

from client.secagg import masked_report, unmask
from common.errors import Code
from common.secagg import RoundSeed
from common.secagg.keys import encapsulate, public
from common.secagg.pairwise.keys import Link
from common.secagg.statements import member_of, sign_keys
from simulations.bench.flower_round import Relay, play
from tests.attacks.opponents import FIRST, WIDE, flower_sites, pair_key, refused, state_of, updates
from tests.pairwise_federation import PairFederation
from tests.secagg_federation import Federation, signer


def test_on_flower_the_server_decrypts_key_shares_and_rebuilds_a_sites_private_key():
    """Man in the middle (secaggplus_mod._share_keys checks uniqueness and the site's own key only)."""
    known: list[bytes] = []

    def substitute(stage, message):
        if stage == "share_keys" and message.metadata.dst_node_id == FIRST:
            record = message.content.config_records[RECORD_KEY_CONFIGS]
            for node in [name for name in record if name not in (Key.STAGE, str(FIRST))]:
                (_, first), (private, second) = generate_key_pairs(), generate_key_pairs()
                known.append(private_key_to_bytes(private))
                record[node] = [public_key_to_bytes(first), public_key_to_bytes(second)]
        return message

    relay = Relay(flower_sites(updates(5)), lost={"collect_masked_vectors": range(FIRST, FIRST + 5)}, tamper=substitute)
    play(relay, 5, 3)
    assert not relay.errors
    target = state_of(relay.sites[FIRST])
    sent = relay.replies["share_keys"][FIRST].config_records[RECORD_KEY_CONFIGS][Key.CIPHERTEXT_LIST]
    opened = [decrypt(pair_key(private, target["pk2"]), each) for private, each in zip(known, sent, strict=True)]
    shares = [share_keys_plaintext_separate(each)[3] for each in opened]
    assert combine_shares(shares[:3]) == target["sk1"]


def substituted(federation: Federation, by: str | int):
    """The first unmasking site's keys, replaced by ones whose seed the attacker knows, signed with what it has."""
    first, second = federation.keys()
    seed = RoundSeed(os.urandom(32))
    forged = altered(first, exchange=public(seed.exchange), kem=public(seed.kem))
    return sign_keys(signer(by), federation.session, forged), second


@pytest.mark.parametrize("by", ["coordinator", 2, "stranger"])
def test_keys_that_their_unmasking_site_did_not_sign_are_refused_and_nothing_is_masked(by):
    """Man in the middle: the coordinator, another site, or a stranger in the place of an unmasking site."""
    federation = Federation.open(5, codec=WIDE)
    assert by not in federation.session.unmaskers
    forged = substituted(federation, by)
    federation.keys = lambda number=0: forged
    with refused(Code.E_SIG):
        federation.report(1, federation.aggregation())
    assert federation.stores[1].last_reported(federation.session.sid) is None


def test_one_unmasking_site_cannot_take_the_place_of_all():
    """A corrupt unmasking site lends its own signed key to the coordinator for every position."""
    federation = Federation.open(5, codec=WIDE)
    first, second = federation.keys()
    for keys in ((first, first), (first, altered(first, unmasker=second.unmasker))):
        federation.keys = lambda number=0, keys=keys: keys
        with refused(Code.E_KEY if keys[1] is first else Code.E_SIG):
            federation.report(1, federation.aggregation())


def test_keys_of_an_earlier_session_of_the_same_sites_are_refused():
    """Replayed keys: their seeds may have been stolen since."""
    federation = Federation.open(5, codec=WIDE)
    old = federation.keys()
    later = federation.again(bytes([1] * 32))
    replayed = tuple(
        altered(mine, exchange=earlier.exchange, kem=earlier.kem, signature=earlier.signature)
        for mine, earlier in zip(later.keys(), old, strict=True)
    )
    later.keys = lambda number=0: replayed
    with refused(Code.E_SIG):
        later.report(1, later.aggregation())


def test_a_report_under_the_coordinators_keys_is_refused_by_every_unmasking_site():
    """Man in the middle between a site and the unmasking sites: another one-time key, ciphertexts for it."""
    federation = Federation.open(5, codec=WIDE)
    state = federation.collected()
    own = X25519PrivateKey.generate()
    for place, site in enumerate(federation.session.unmaskers):
        fresh = encapsulate(federation.keys()[place].kem)[1]
        victim, *others = state.members(site)
        forged = altered(victim, exchange=public(own))
        with refused(Code.E_SIG):
            unmask(federation.stores[site], state.aggregation, (forged, *others))
        with refused(Code.E_KEY):
            unmask(federation.stores[site], state.aggregation, (altered(victim, ciphertext=fresh), *others))


def test_pairwise_a_lock_of_the_coordinators_own_masks_nothing():
    """Post-quantum part of a pair's key, replaced by one that the coordinator knows: X25519 alone would be left.

    A later quantum computer would then open what a recorded attempt masked; so whoever opened the pair seals the lock.
    """
    federation = PairFederation.open(5, 4)
    state = federation.dealt(federation.advertised(federation.attempt()))
    place, keys = federation.place(federation.attempt()), state.dealt.keys
    dealt, parcels = state.masks(5), state.incoming(5)
    for at, parcel in enumerate(parcels):
        link = Link(context=federation.attempt().context, first=keys[parcel.dealer], second=keys[5], lock=None)
        own = altered(parcel, lock=link.locked(RoundSeed(os.urandom(32))))
        with refused(Code.E_KEY):
            federation.sites[5].mask(*place, dealt, (*parcels[:at], own, *parcels[at + 1 :]))
    assert federation.revealed(federation.agreed(federation.masked(state))).open(federation.codec).values[0] == 15


def test_a_site_cannot_speak_for_another():
    """A corrupt site signs a report in another's name: its mask key would be bound to the other's id."""
    federation = Federation.open(4, codec=WIDE)
    state = federation.collected(sites=[1, 2, 3])
    encoded = WIDE.encode(np.zeros(WIDE.dimension, np.int64))
    report = masked_report(signer(3), state.aggregation, federation.keys(), encoded, X25519PrivateKey.generate())
    stolen = altered(report, site=4)
    for place, site in enumerate(federation.session.unmaskers):
        with refused(Code.E_SIG):
            unmask(federation.stores[site], state.aggregation, (*state.members(site), member_of(stolen, place)))
