"""What an unmasking site refuses when shares of round seeds are dealt and kept, whatever the coordinator asks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec.structs import replace as altered

from client.keystore import SqliteKeyStore
from client.recovery import deal, keep, own_box
from client.secagg import enrol
from common.errors import Code, Refusal
from common.frames import pack
from common.randomness import child
from common.secagg import RoundSeed, Rules
from common.secagg.parcels import box_key, sealed_parcel
from common.secagg.shamir import join
from server.dealing import Dealing
from server.enrolment import Opening, open_session
from tests.secagg_federation import JOB, SHARING, Federation, manifest_of, shared, signer

OTHER = bytes([9] * 32)


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def enrolled(rules: Rules = SHARING):
    """A session in which all have enrolled and nobody has dealt."""
    manifest = manifest_of(5, rules)
    stores = {number: SqliteKeyStore.volatile(signer(number)) for number in manifest.ids}
    session = open_session(manifest, JOB, manifest.ids, range(3), sid=bytes(32), draw=child(1, "unmaskers"))
    opening = Opening(manifest, session)
    for site in session.unmaskers:
        keys = enrol(stores[site], manifest, session)
        opening = opening.receive(site, keys, own_box(stores[site], manifest, session))
    return opening, stores


def dealt(opening: Opening, stores) -> Dealing:
    dealing = Dealing(opening)
    for site in opening.session.unmaskers:
        dealing = dealing.receive(site, deal(stores[site], opening.manifest, opening.session, dealing.boxes))
    return dealing


# Dealing


def test_shares_of_every_seed_rebuild_it_and_the_same_order_gives_the_same_parcels():
    opening, stores = enrolled()
    dealing = dealt(opening, stores)
    session = opening.session
    for site in session.unmaskers:
        assert deal(stores[site], opening.manifest, session, dealing.boxes) == dealing.parcels[site]
    seed = stores[1].seed(session.sid, 2).reveal()
    shared(opening, stores)
    assert join({site: stores[site].shares.share(session.sid, 2, 1) for site in (2, 3, 4, 5)}) == seed


BOXES = [
    ("none", Code.E_KEY, lambda boxes: ()),
    ("one missing", Code.E_KEY, lambda boxes: boxes[:-1]),
    ("another order", Code.E_KEY, lambda boxes: boxes[::-1]),
    ("without ML-KEM", Code.E_KEY, lambda boxes: tuple(altered(box, kem=None) for box in boxes)),
    ("another key", Code.E_SIG, lambda boxes: (altered(boxes[0], exchange=OTHER), *boxes[1:])),
    ("another's signature", Code.E_SIG, lambda boxes: (altered(boxes[0], signature=boxes[1].signature), *boxes[1:])),
]


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in BOXES], ids=[case[0] for case in BOXES])
def test_nothing_is_dealt_to_keys_that_are_not_exactly_the_sessions(code, change):
    opening, stores = enrolled()
    boxes = Dealing(opening).boxes
    with refused(code):
        deal(stores[1], opening.manifest, opening.session, change(boxes))
    assert stores[1].shares.dealt(opening.session.sid) is None
    assert len(deal(stores[1], opening.manifest, opening.session, boxes)) == 4


def test_keys_of_the_coordinators_own_making_are_refused():
    """A relay that wants to read the shares: only the identity that the manifest names can sign a box."""
    opening, stores = enrolled()
    forged = box_key(signer("coordinator"), opening.session, 2, RoundSeed.generate())
    boxes = (opening.boxes[1], forged, *(opening.boxes[site] for site in (3, 4, 5)))
    with refused(Code.E_SIG):
        deal(stores[1], opening.manifest, opening.session, boxes)


def test_seeds_are_shared_once_and_not_again_with_other_keys():
    opening, stores = enrolled()
    boxes = Dealing(opening).boxes
    deal(stores[1], opening.manifest, opening.session, boxes)
    second = box_key(signer(2), opening.session, 2, RoundSeed.generate())
    with refused(Code.E_ROUND):
        deal(stores[1], opening.manifest, opening.session, (boxes[0], second, *boxes[2:]))


def test_under_rules_without_shares_none_are_made():
    opening, stores = enrolled(replace(SHARING, lost_max=0, shares_min=0))
    assert opening.boxes == {}
    assert own_box(stores[1], opening.manifest, opening.session) is None
    for act in (deal, keep):
        with refused(Code.E_POLICY):
            act(stores[1], opening.manifest, opening.session, ())


def test_who_did_not_enrol_deals_and_keeps_nothing():
    opening, stores = enrolled()
    dealing = dealt(opening, stores)
    empty = SqliteKeyStore.volatile(signer(1))
    with refused(Code.E_ROUND):
        deal(empty, opening.manifest, opening.session, dealing.boxes)
    with refused(Code.E_ROUND):
        keep(empty, opening.manifest, opening.session, dealing.meant_for(1))


def test_a_session_that_is_under_way_deals_and_keeps_nothing_more():
    federation = Federation.open(5, rules=SHARING)
    federation.report(1, federation.aggregation())
    with refused(Code.E_ROUND):
        deal(federation.stores[1], federation.manifest, federation.session, Dealing(federation.opening).boxes)
    with refused(Code.E_ROUND):
        keep(federation.stores[1], federation.manifest, federation.session, ())


# Keeping


def test_kept_shares_are_kept_once_and_the_box_is_erased():
    opening, stores = enrolled()
    dealing = dealt(opening, stores)
    parcels = dealing.meant_for(1)
    assert keep(stores[1], opening.manifest, opening.session, parcels) == ()
    assert keep(stores[1], opening.manifest, opening.session, parcels) == ()
    assert stores[1].shares.box(opening.session.sid) is None
    again = sealed_parcel(signer(2), opening.session, 2, opening.boxes[1], [bytes(33)] * 3)
    with refused(Code.E_ROUND):
        keep(stores[1], opening.manifest, opening.session, (again, *parcels[1:]))
    with refused(Code.E_ROUND):
        own_box(stores[1], opening.manifest, opening.session)


PARCELS = [
    ("one missing", Code.E_SHARE, lambda parcels: parcels[:-1]),
    ("another order", Code.E_SHARE, lambda parcels: parcels[::-1]),
    ("one twice", Code.E_SHARE, lambda parcels: (parcels[0], *parcels[:-1])),
    ("another body", Code.E_SIG, lambda p: (altered(p[0], body=bytes(len(p[0].body))), *p[1:])),
    ("a shorter body", Code.E_SHARE, lambda p: (altered(p[0], body=p[0].body[33:]), *p[1:])),
    ("other commitments", Code.E_SIG, lambda p: (altered(p[0], commitments=(OTHER,) * 3), *p[1:])),
    ("too few commitments", Code.E_SHARE, lambda p: (altered(p[0], commitments=(OTHER,)), *p[1:])),
    ("another one-time key", Code.E_SIG, lambda p: (altered(p[0], exchange=OTHER), *p[1:])),
    ("no ciphertext", Code.E_SHARE, lambda p: (altered(p[0], ciphertext=None), *p[1:])),
    ("another's name", Code.E_SHARE, lambda p: (altered(p[0], dealer=p[1].dealer), *p[1:])),
]


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in PARCELS], ids=[case[0] for case in PARCELS])
def test_parcels_that_are_not_whole_and_signed_are_refused(code, change):
    opening, stores = enrolled()
    parcels = dealt(opening, stores).meant_for(1)
    with refused(code):
        keep(stores[1], opening.manifest, opening.session, change(parcels))
    assert stores[1].shares.kept(opening.session.sid) is None
    assert keep(stores[1], opening.manifest, opening.session, parcels) == ()


def test_a_parcel_that_its_dealer_sealed_for_another_or_falsely_is_named_and_nothing_is_kept():
    opening, stores = enrolled()
    dealing, session = dealt(opening, stores), opening.session
    good = dealing.meant_for(1)
    misled = sealed_parcel(signer(2), session, 2, altered(opening.boxes[3], holder=1), [bytes(33)] * 3)
    honest = sealed_parcel(signer(3), session, 3, opening.boxes[1], [bytes(33)] * 3)
    assert keep(stores[1], opening.manifest, session, (misled, honest, *good[2:])) == (2,)
    assert stores[1].shares.kept(session.sid) is None
    assert keep(stores[1], opening.manifest, session, good) == ()


def test_nobody_but_the_holder_opens_a_parcel():
    """Not the coordinator, and not even the dealer later: its one-time key is gone."""
    opening, stores = enrolled()
    dealing = dealt(opening, stores)
    seeds = [stores[1].seed(opening.session.sid, number).reveal() for number in range(3)]
    sent = b"".join(pack(parcel) for parcel in dealing.parcels[1])
    shared(opening, stores)
    shares = [stores[2].shares.share(opening.session.sid, number, 1) for number in range(3)]
    assert not any(secret in sent for secret in (*seeds, *shares))
