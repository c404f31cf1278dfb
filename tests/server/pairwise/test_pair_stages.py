"""What the coordinator takes in each stage: whole, signed, asked for, once; a lying site spoils nobody else's."""

from __future__ import annotations

import pytest
from msgspec.structs import replace as altered

from common.errors import Code, Refusal
from common.secagg.pairwise.attempt import sign_keys
from common.secagg.pairwise.keys import Held, Way, sealed
from server.pairwise.stages import Advertising, Agreeing, Dealing, Masking
from tests.pairwise_federation import PairFederation
from tests.secagg_federation import signer


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


@pytest.fixture
def federation() -> PairFederation:
    return PairFederation.open(5, 4)


def test_keys_in_another_s_name_twice_or_from_a_stranger_are_refused(federation):
    attempt = federation.attempt(cohort=(1, 2, 3, 4))
    state = Advertising(attempt)
    keys = federation.sites[1].advertise(attempt, federation.encoded(1))
    for site, code, given in (
        (2, Code.E_SET, keys),
        (5, Code.E_SET, altered(keys, site=5)),
        (99, Code.E_SET, altered(keys, site=99)),
        (1, Code.E_SIG, altered(keys, seed=bytes(32))),
    ):
        with refused(code):
            state.receive(site, given)
    with refused(Code.E_DUP):
        state.receive(1, keys).receive(1, keys)


@pytest.mark.parametrize("which", ["exchange", "box_exchange"])
def test_a_signed_key_of_small_order_is_refused_before_others_must_use_it(federation, which):
    attempt = federation.attempt()
    keys = federation.sites[1].advertise(attempt, federation.encoded(1))
    weak = sign_keys(signer(1), attempt, altered(keys, **{which: bytes(32)}))
    with refused(Code.E_KEY):
        Advertising(attempt).receive(1, weak)


PARCELS = [
    ("one missing", Code.E_SET, lambda p: p[1:]),
    ("one twice", Code.E_SET, lambda p: (p[0], *p)),
    ("out of order", Code.E_SET, lambda p: p[::-1]),
    ("of another dealer", Code.E_SET, lambda p: (altered(p[0], dealer=3), *p[1:])),
    ("for a stranger", Code.E_SET, lambda p: (*p[:-1], altered(p[-1], holder=99))),
    ("without ciphertext", Code.E_KEY, lambda p: (altered(p[0], ciphertext=None), *p[1:])),
    ("without lock", Code.E_KEY, lambda p: (*p[:-1], altered(p[-1], lock=None))),
]


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in PARCELS], ids=[case[0] for case in PARCELS])
def test_parcels_that_are_not_one_of_each_chosen_peer_are_refused(federation, code, change):
    state = federation.advertised(federation.attempt())
    parcels = federation.sites[1].deal(*federation.place(state.attempt), state.peers(1))
    with refused(code):
        state.receive(1, change(parcels))
    assert state.receive(1, parcels).parcels.keys() == {1}


def test_a_vector_of_another_length_from_a_stranger_or_twice_is_refused_and_adds_nothing(federation):
    state = federation.dealt(federation.advertised(federation.attempt()))
    body = federation.body(1, state)
    for site, code, given in ((1, Code.MESSAGE_INVALID, body[:-4]), (99, Code.E_SET, body)):
        with refused(code):
            state.receive(site, given)
    after = state.receive(1, body)
    with refused(Code.E_DUP):
        after.receive(1, body)
    with refused(Code.E_ROUND):
        state.receive(2, body)  # a state that was left behind
    for site in (2, 3, 4, 5):
        after = after.receive(site, federation.body(site, after))
    assert federation.revealed(federation.agreed(after.close())).open(federation.codec).values[0] == 15


def test_a_signature_over_another_set_or_by_one_that_is_no_survivor_is_refused(federation):
    lossy = federation.losing(mask=[5])
    state = lossy.masked(lossy.dealt(lossy.advertised(federation.attempt())))
    place = federation.place(federation.attempt())
    good = federation.sites[1].agree(*place, state.survivors)
    for site, code, given in ((2, Code.E_SIG, good), (5, Code.E_SET, good), (1, Code.E_SIG, bytes(64))):
        with refused(code):
            state.receive(site, given)
    with refused(Code.E_DUP):
        state.receive(1, good).receive(1, good)


SHARES = [
    ("a false one", Code.E_SHARE, lambda s: (altered(s[0], share=bytes(33)), *s[1:])),
    ("another dealer's", Code.E_SHARE, lambda s: (altered(s[0], share=s[2].share), *s[1:])),
    ("an unknown dealer's", Code.E_SET, lambda s: (*s, altered(s[0], dealer=99))),
    ("one twice", Code.E_SET, lambda s: (s[0], *s)),
]


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in SHARES], ids=[case[0] for case in SHARES])
def test_shares_that_were_not_dealt_are_refused_and_the_others_open_the_sum(federation, code, change):
    """Must: find a false share by its commitment and do without its holder. Must not: fail, or open a wrong sum."""
    state = federation.agreed(federation.masked(federation.dealt(federation.advertised(federation.attempt()))))
    place = federation.place(state.attempt)
    with refused(code):
        state.receive(2, change(federation.sites[2].reveal(*place, state.endorsements(2))))
    opened = federation.losing(reveal=[2]).revealed(state).open(federation.codec)
    assert opened.values[0] == 15


def test_a_dealer_whose_shares_rebuild_nothing_is_named(federation):
    """A corrupt dealer can spoil an attempt, but not unseen: the next one goes on without it."""
    state = federation.advertised(federation.attempt())
    place = federation.place(state.attempt)
    liar = federation.sites[1]._stage
    honest, zero = liar.deal(state.peers(1)).parcels, Held(own=bytes(33), pair=bytes(33))
    ways = [Way(context=state.attempt.context, dealer=liar.keys, holder=state.keys[p.holder]) for p in honest]
    false = tuple(sealed(way, liar.secrets.box, zero, parcel.lock) for way, parcel in zip(ways, honest, strict=True))
    federation.sites[1].deal(*place, state.peers(1))
    state = state.receive(1, false)
    for site in (2, 3, 4, 5):
        state = state.receive(site, federation.sites[site].deal(*place, state.peers(site)))
    agreeing = federation.masked(state.close())
    revealing = federation.losing(reveal=[1]).revealed(federation.agreed(agreeing))
    assert revealing.false == {1}
    with refused(Code.E_SHARE):
        revealing.open(federation.codec)


def test_states_print_neither_keys_nor_shares_nor_vectors(federation):
    dealing = federation.advertised(federation.attempt())
    masking = federation.dealt(dealing)
    agreeing = federation.masked(masking)
    revealing = federation.revealed(federation.agreed(agreeing))
    for state in (dealing, masking, agreeing, revealing):
        assert isinstance(state, Dealing | Masking | Agreeing) or "shares=" not in repr(state)
        assert "b'" not in repr(state).replace(repr(dealing.attempt), "").replace("sid=b'", "")
