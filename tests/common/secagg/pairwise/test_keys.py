"""Mask keys, locks and parcels: both ends agree, nobody else does, and nothing prints."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec.structs import replace as altered

from common.errors import Code, Refusal
from common.secagg.keys import RoundSeed
from common.secagg.masks import Ring, add_masks, reduce
from common.secagg.pairwise.keys import Held, Link, Secrets, Way, opened, sealed, self_digest, self_key
from common.secagg.pairwise.masking import apply, sides

CONTEXT = bytes(range(32))
HELD = Held(own=bytes([1]) * 33, pair=bytes([2]) * 33)


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def pair(suite: int, context: bytes = CONTEXT) -> tuple[Secrets, Secrets, Link]:
    first, second = (
        Secrets(pair=RoundSeed(bytes([n]) * 32), box=RoundSeed(bytes([n + 10]) * 32), own=bytes([n + 20]) * 32)
        for n in (1, 2)
    )
    keys = [each.keys(context, site, 0, bytes(32), suite) for site, each in ((1, first), (2, second))]
    link = Link(context=context, first=keys[0], second=keys[1], lock=None)
    return first, second, replace(link, lock=link.locked(first.pair))


@pytest.mark.parametrize("suite", [1, 2])
def test_both_ends_and_a_rebuilt_seed_of_either_find_one_mask_key(suite):
    first, second, link = pair(suite)
    key = link.key_from_first(first.pair)
    assert key == link.key_from_second(second.pair)
    assert key == link.key_from_first(RoundSeed(first.pair.reveal()))
    assert (link.lock is None) == (suite == 1)


def test_mask_keys_of_suite_1_are_pinned_and_are_those_of_the_formula():
    """A change here breaks every federation that mixes releases."""
    first, second, link = pair(1)
    ids = struct.pack("<QQ", 1, 2)
    shared = first.pair.exchange.exchange(second.pair.exchange.public_key())
    info = b"pairwise-v1/mask\0" + ids + link.first.exchange + link.second.exchange
    assert link.key_from_first(first.pair) == HKDF(SHA256(), 32, CONTEXT, info).derive(shared)
    assert link.key_from_first(first.pair).hex()[:16] == "8090635a1ec54de8"
    assert self_key(CONTEXT, 1, first.own).hex()[:16] == "f8cb906bc90e8756"


@pytest.mark.parametrize("suite", [1, 2])
def test_another_context_end_or_lock_gives_another_key(suite):
    first, second, link = pair(suite)
    key = link.key_from_second(second.pair)
    changed = [
        replace(link, context=bytes(32)),
        replace(link, first=altered(link.first, site=3)),
        replace(link, second=altered(link.second, site=3)),
    ]
    if link.lock is not None:
        changed.append(replace(link, lock=altered(link.lock, pad=bytes(32))))
        changed.append(replace(link, lock=link.locked(first.pair)))  # a second lock: fresh ciphertext
    found = {each.key_from_second(second.pair) for each in changed}
    assert key not in found
    assert len(found) == len(changed)


def way_of(link: Link) -> Way:
    return Way(context=CONTEXT, dealer=link.first, holder=link.second)


@pytest.mark.parametrize("suite", [1, 2])
def test_a_parcel_opens_at_its_holder_alone(suite):
    first, second, link = pair(suite)
    way = way_of(link)
    parcel = sealed(way, first.box, HELD, link.lock)
    assert opened(way, second.box, parcel) == HELD
    assert HELD.own not in parcel.body
    for other, box in (
        (replace(way, context=bytes(32)), second.box),
        (replace(way, dealer=altered(link.first, site=3)), second.box),
        (way, second.pair),
    ):
        with refused(Code.E_KEY):
            opened(other, box, parcel)


CHANGES = {
    "body": lambda p: altered(p, body=bytes(82)),
    "commitment of its own mask": lambda p: altered(p, self_commitment=p.pair_commitment),
    "commitment of its pair seed": lambda p: altered(p, pair_commitment=p.self_commitment),
    "no lock": lambda p: altered(p, lock=None),
    "pad of its lock": lambda p: altered(p, lock=altered(p.lock, pad=bytes(32))),
    "ciphertext of its lock": lambda p: altered(p, lock=altered(p.lock, ciphertext=bytes(1088))),
    "ciphertext": lambda p: altered(p, ciphertext=bytes(1088)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_parcel_that_was_changed_on_the_way_is_refused(change):
    first, second, link = pair(2)
    parcel = sealed(way_of(link), first.box, HELD, link.lock)
    with refused(Code.E_KEY):
        opened(way_of(link), second.box, change(parcel))


@pytest.mark.parametrize("end", ["dealer", "holder"])
@pytest.mark.parametrize("name", ["exchange", "kem", "box_kem", "seed", "self_digest", "number"])
def test_a_parcel_is_locked_to_all_that_both_ends_advertised(end, name):
    """Must: a holder that was shown other keys of its dealer, or showed it others, has no share of it."""
    first, second, link = pair(2)
    parcel, way = sealed(way_of(link), first.box, HELD, link.lock), way_of(link)
    keys = getattr(way, end)
    value = getattr(keys, name)
    other = altered(keys, **{name: value + 1 if isinstance(value, int) else bytes([7]) * len(value)})
    with refused(Code.E_KEY):
        opened(replace(way, **{end: other}), second.box, parcel)


def test_shares_that_their_dealer_did_not_commit_to_are_refused(monkeypatch):
    """A dealer that lies to itself: sealed as it should be, with commitments to something else."""
    first, second, link = pair(2)
    with monkeypatch.context() as lying:
        lying.setattr(Way, "commitment", lambda way, share: bytes(32))
        parcel = sealed(way_of(link), first.box, HELD, link.lock)
    with refused(Code.E_SHARE):
        opened(way_of(link), second.box, parcel)


def test_secrets_shares_and_what_follows_from_them_do_not_print():
    secrets = Secrets.generate()
    for value in (repr(secrets), repr(HELD)):
        assert value in ("Secrets()", "Held()")
    assert self_digest(CONTEXT, 1, secrets.own) != self_digest(CONTEXT, 2, secrets.own)
    assert secrets.own not in (self_digest(CONTEXT, 1, secrets.own), self_key(CONTEXT, 1, secrets.own))


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_masks_of_a_pair_cancel_and_are_taken_away_as_they_were_added(bits):
    ring = Ring(bits, 100)
    keys = {peer: bytes([peer]) * 32 for peer in (1, 3, 5)}
    assert sides(3, keys)[0] == [keys[5]]
    assert sides(3, keys)[1] == [keys[1]]
    lanes, masks = ring.zeros(), ring.zeros()
    apply([keys[1]], [keys[5]], lanes)
    add_masks([keys[1]], masks)
    apply([keys[5]], [], lanes)
    np.testing.assert_array_equal(reduce(ring, lanes), reduce(ring, masks))
