"""Sessions: chosen by a public draw, within the rules, with keys that their unmasking sites signed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace as altered

from client.keystore import SqliteKeyStore
from client.secagg import enrol
from common.errors import Code, Refusal
from common.randomness import child
from common.secagg.statements import sign_keys
from server.enrolment import Opening, open_session
from tests.secagg_federation import JOB, Federation, manifest_of, signer


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def chosen(manifest, present, seed=1):
    session = open_session(manifest, JOB, present, range(4), sid=bytes(32), draw=child(seed, "unmaskers"))
    return session.unmaskers


def test_who_unmasks_follows_from_the_seed_and_only_those_present_are_drawn():
    manifest = manifest_of(9, unmaskers=[1, 3, 5, 7, 9])
    assert chosen(manifest, range(1, 10)) == chosen(manifest, range(9, 0, -1))
    assert set(chosen(manifest, [1, 2, 7])) == {1, 7}
    assert len({chosen(manifest, range(1, 10), seed) for seed in range(40)}) > 5


def test_too_few_unmasking_sites_or_too_many_numbers_open_no_session():
    manifest = manifest_of(5, unmaskers=[1, 3])
    with refused(Code.E_TOO_FEW):
        chosen(manifest, [1, 2, 4])
    with refused(Code.E_POLICY):
        open_session(manifest, JOB, [1, 3], range(65), sid=bytes(32), draw=child(1))


def opening(count=3):
    manifest = manifest_of(count)
    session = open_session(manifest, JOB, manifest.ids, range(2), sid=bytes(32), draw=child(1))
    site = session.unmaskers[0]
    return Opening(manifest, session), site, enrol(SqliteKeyStore.volatile(signer(site)), manifest, session)


def test_round_keys_are_given_out_once_all_unmasking_sites_have_enrolled():
    state, site, keys = opening()
    state = state.receive(site, keys)
    assert state.missing == set(state.session.unmaskers) - {site}
    with refused(Code.E_HELPER_LOST):
        state.keys(0)
    assert [key.number for key in Federation.open(3).keys(1)] == [1, 1]


SPOILED = [
    (Code.E_SIG, lambda keys: (altered(keys[0], exchange=bytes(32)), keys[1])),
    (Code.E_SIG, lambda keys: (altered(keys[0], kem=keys[1].kem), keys[1])),
    (Code.E_SIG, lambda keys: (altered(keys[0], signature=keys[1].signature), keys[1])),
    (Code.E_KEY, lambda keys: (altered(keys[0], kem=None), keys[1])),
    (Code.E_KEY, lambda keys: keys[:1]),
    (Code.E_KEY, lambda keys: keys[::-1]),
    (Code.E_KEY, lambda keys: (keys[0], altered(keys[1], number=5))),
]


@pytest.mark.parametrize(("code", "spoil"), SPOILED)
def test_spoiled_round_keys_are_refused(code, spoil):
    state, site, keys = opening()
    with refused(code):
        state.receive(site, spoil(keys))
    assert state.receive(site, keys).missing == set(state.session.unmaskers) - {site}


def test_keys_substituted_by_the_coordinator_are_refused():
    """A relay that puts its own keys in the place of a site's: only the manifest's identity can sign them."""
    state, site, keys = opening()
    forged = tuple(sign_keys(signer("coordinator"), state.session, key) for key in keys)
    with refused(Code.E_SIG):
        state.receive(site, forged)


def test_a_second_enrolment_and_an_uninvited_one_are_refused():
    state, site, keys = opening(5)
    stranger = next(number for number in state.manifest.ids if number not in state.session.unmaskers)
    with refused(Code.E_DUP):
        state.receive(site, keys).receive(site, keys)
    with refused(Code.E_POLICY):
        state.receive(stranger, keys)
