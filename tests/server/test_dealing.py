"""Shares through the coordinator: whole and signed, or refused; a quarrel costs both their place."""

from __future__ import annotations

import pytest
from msgspec.structs import replace as altered

from client.keystore import SqliteKeyStore
from client.recovery import deal, keep, own_box
from client.secagg import enrol
from common.errors import Code, Refusal
from common.randomness import child
from common.secagg import RoundSeed
from common.secagg.parcels import box_key
from server.dealing import Dealing
from server.enrolment import Opening, open_session
from tests.secagg_federation import JOB, SHARING, manifest_of, signer


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def enrolled():
    manifest = manifest_of(6, SHARING)
    session = open_session(manifest, JOB, manifest.ids, range(2), sid=bytes(32), draw=child(1, "unmaskers"))
    stores = {site: SqliteKeyStore.volatile(signer(site)) for site in manifest.ids}
    opening = Opening(manifest, session)
    for site in session.unmaskers:
        keys = enrol(stores[site], manifest, session)
        opening = opening.receive(site, keys, own_box(stores[site], manifest, session))
    return opening, stores


def dealt():
    opening, stores = enrolled()
    dealing = Dealing(opening)
    for site in opening.session.unmaskers:
        dealing = dealing.receive(site, deal(stores[site], opening.manifest, opening.session, dealing.boxes))
    return dealing, stores


def test_a_session_is_ready_when_all_have_dealt_and_all_keep():
    dealing, stores = dealt()
    opening = dealing.opening
    assert dealing.undealt == frozenset()
    for site in opening.session.unmaskers:
        with refused(Code.E_HELPER_LOST):
            dealing.close()
        bad = keep(stores[site], opening.manifest, opening.session, dealing.meant_for(site))
        dealing = dealing.confirm(site, bad)
    ready = dealing.close()
    assert len(ready.commitments) == 5 * 4
    assert {len(each) for each in ready.commitments.values()} == {2}


def test_without_a_box_or_with_anothers_nobody_enrols_where_shares_are_asked_for():
    opening, _ = enrolled()
    site, other = opening.session.unmaskers[:2]
    blank = Opening(opening.manifest, opening.session)
    for box in (None, opening.boxes[other]):
        with refused(Code.E_KEY):
            blank.receive(site, opening.received[site], box)
    with refused(Code.E_KEY):
        blank.receive(site, opening.received[site], altered(opening.boxes[site], kem=None))
    forged = box_key(signer("coordinator"), opening.session, site, RoundSeed.generate())
    with refused(Code.E_SIG):
        blank.receive(site, opening.received[site], forged)


SPOILED = [
    ("one missing", Code.E_SHARE, lambda parcels: parcels[:-1]),
    ("another order", Code.E_SHARE, lambda parcels: parcels[::-1]),
    ("one for itself", Code.E_SHARE, lambda p: (altered(p[0], holder=p[0].dealer), *p[1:])),
    ("another body", Code.E_SIG, lambda p: (altered(p[0], body=bytes(len(p[0].body))), *p[1:])),
    ("other commitments", Code.E_SIG, lambda p: (altered(p[0], commitments=p[1].commitments), *p[1:])),
    ("a longer body", Code.E_SHARE, lambda p: (altered(p[0], body=p[0].body + bytes(33)), *p[1:])),
]


@pytest.mark.parametrize(("code", "spoil"), [case[1:] for case in SPOILED], ids=[case[0] for case in SPOILED])
def test_spoiled_parcels_are_refused(code, spoil):
    opening, stores = enrolled()
    dealing, site = Dealing(opening), opening.session.unmaskers[0]
    parcels = deal(stores[site], opening.manifest, opening.session, dealing.boxes)
    with refused(code):
        dealing.receive(site, spoil(parcels))
    dealing = dealing.receive(site, parcels)
    with refused(Code.E_DUP):
        dealing.receive(site, parcels)
    assert site not in dealing.undealt


def test_a_quarrel_costs_both_their_place_and_a_stranger_has_no_say():
    dealing, _ = dealt()
    one, other, *_ = dealing.opening.session.unmaskers
    stranger = next(site for site in dealing.opening.manifest.ids if site not in dealing.opening.session.unmaskers)
    assert dealing.confirm(one, (other,)).disputed == {one, other}
    for site, bad in ((stranger, ()), (one, (stranger,)), (one, (one,))):
        with refused(Code.E_POLICY):
            dealing.confirm(site, bad)
    with refused(Code.E_POLICY):
        dealing.receive(stranger, ())
