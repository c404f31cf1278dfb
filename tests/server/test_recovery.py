"""Recovery: the exact sum though unmasking sites are lost, never more than the rules allow; false shares are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as altered

from client.secagg import unmask
from common.errors import Code, Refusal
from common.secagg import IntegerCodec, RoundSeed
from common.secagg.parcels import sealed_parcel, share_commitment
from common.secagg.shamir import share
from common.secagg.statements import sign_release
from common.secagg.totals import mask_sum
from server.recovery import Recovering
from server.secagg import Collecting
from tests.secagg_federation import SHARING, Federation, signer

SEVEN = replace(SHARING, unmaskers_min=7, corrupt_max=2, lost_max=2, shares_min=5)


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_sum_is_bit_exact_whichever_unmasking_sites_are_lost(data):
    """Must: give the integers' own sum with up to f lost sites, in both suites, whoever dropped out before."""
    rules = replace(data.draw(st.sampled_from([SHARING, SEVEN])), suite=data.draw(st.sampled_from([1, 2])))
    codec = IntegerCodec(dimension=data.draw(st.sampled_from([1, 5, 1001])), sites_max=16, bits=24)
    federation = Federation.open(rules.unmaskers_min + 1, rules=rules, codec=codec, numbers=2)
    present = sorted(data.draw(st.sets(st.sampled_from(federation.manifest.ids), min_size=2)))
    lost = sorted(
        data.draw(st.sets(st.sampled_from(federation.session.unmaskers), min_size=1, max_size=rules.lost_max))
    )
    aggregation = federation.aggregation(1)
    state, expected = Collecting.open(aggregation, federation.manifest.ids), np.zeros(codec.dimension, np.int64)
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    for site in present:
        vector = draw.choice([-codec.limit, -1, 0, 1, codec.limit], codec.dimension)
        expected += vector
        state = state.receive(site, federation.report(site, aggregation, vector))
    opened = federation.recovered(state.close(), lost).open(codec)
    assert opened.count == len(present)
    np.testing.assert_array_equal(opened.values, expected)


def test_recovered_masks_equal_those_that_the_lost_site_would_have_sent():
    federation = Federation.open(6, rules=SHARING)
    state = federation.collected()
    lost = federation.session.unmaskers[2]
    sent = unmask(federation.stores[lost], state.aggregation, state.members(lost))
    recovering = recovering_of(federation, state, lost)
    for holder in sorted(recovering.missing):
        recovering = recovering.receive(holder, federation.released(recovering, holder))
    assert mask_sum(state.aggregation, lost, recovering._seed(lost), state.members(lost)) == sent.body


def recovering_of(federation: Federation, state, *lost: int) -> Recovering:
    live = [site for site in federation.session.unmaskers if site not in lost]
    return Recovering.open(federation.opening, federation.answered(state, live))


def test_more_lost_sites_than_the_rules_allow_end_the_round():
    federation = Federation.open(6, rules=SHARING)
    with refused(Code.E_HELPER_LOST):
        recovering_of(federation, federation.collected(), *federation.session.unmaskers[:2])
    federation = Federation.open(4)
    with refused(Code.E_HELPER_LOST):
        recovering_of(federation, federation.collected(), federation.session.unmaskers[0])


def test_nothing_is_recovered_where_nobody_is_lost():
    federation = Federation.open(5, rules=SHARING)
    with refused(Code.E_HELPER_LOST):
        recovering_of(federation, federation.collected())


def test_one_share_fewer_than_the_threshold_opens_nothing():
    federation = Federation.open(7, rules=SEVEN)
    lost = federation.session.unmaskers[0]
    recovering = recovering_of(federation, federation.collected(), lost)
    for count, holder in enumerate(sorted(recovering.missing), 1):
        recovering = recovering.receive(holder, federation.released(recovering, holder))
        if count < 5:
            assert not recovering.enough
            with refused(Code.E_HELPER_LOST):
                recovering.recover(recovering.unmasking, lost)
    assert recovering.enough
    with refused(Code.E_HELPER_LOST):
        recovering.unmasking.open(federation.codec)
    assert recovering.recover(recovering.unmasking, lost).open(federation.codec).values[0] == 28


def spoiled(federation, recovering, site, **changes):
    """A release that its holder signed all the same."""
    given_release = altered(federation.released(recovering, site), **changes)
    return sign_release(signer(site), recovering.unmasking.aggregation.context, given_release)


def test_a_false_share_is_found_by_its_commitment_and_its_holder_named():
    """Must: refuse it and go on with the others. Must not: rebuild another seed from it."""
    federation = Federation.open(7, rules=SEVEN)
    lost, liar = federation.session.unmaskers[:2]
    recovering = recovering_of(federation, federation.collected(), lost)
    with refused(Code.E_SHARE):
        recovering.receive(liar, spoiled(federation, recovering, liar, shares=(bytes(33),)))
    with refused(Code.E_SHARE):
        recovering.receive(liar, spoiled(federation, recovering, liar, shares=(bytes(33), bytes(33))))
    for holder in sorted(recovering.missing - {liar}):
        recovering = recovering.receive(holder, federation.released(recovering, holder))
    assert recovering.recover(recovering.unmasking, lost).open(federation.codec).values[0] == 28


RELEASES = [
    ("of a site that was not asked", Code.E_POLICY, {"holder": 99}),
    ("of another number", Code.E_ROUND, {"number": 1}),
    ("for another set", Code.E_SET, {"set_digest": bytes(32)}),
    ("for other lost sites", Code.E_SET, {"lost": (99,)}),
]


@pytest.mark.parametrize(("code", "changes"), [case[1:] for case in RELEASES], ids=[case[0] for case in RELEASES])
def test_shares_that_answer_another_question_are_refused(code, changes):
    federation = Federation.open(5, rules=SHARING)
    recovering = recovering_of(federation, federation.collected(), federation.session.unmaskers[0])
    holder = max(recovering.missing)
    with refused(code):
        recovering.receive(holder, spoiled(federation, recovering, holder, **changes))
    with refused(Code.E_SIG):
        recovering.receive(holder, altered(federation.released(recovering, holder), shares=(bytes(33),)))
    recovering = recovering.receive(holder, federation.released(recovering, holder))
    with refused(Code.E_DUP):
        recovering.receive(holder, federation.released(recovering, holder))


def test_a_lost_site_that_answers_after_all_is_refused_and_the_sum_stays_right():
    federation = Federation.open(5, rules=SHARING)
    lost, state = federation.session.unmaskers[3], federation.collected()
    late = unmask(federation.stores[lost], state.aggregation, state.members(lost))
    state = federation.recovered(state, [lost])
    with refused(Code.E_DUP):
        state.receive(lost, late)
    assert state.open(federation.codec).values[0] == 15


def test_a_lost_site_has_no_say_in_its_own_recovery():
    federation = Federation.open(5, rules=SHARING)
    lost = federation.session.unmaskers[0]
    recovering = recovering_of(federation, federation.collected(), lost)
    other = federation.released(recovering, max(recovering.missing))
    with refused(Code.E_POLICY):
        recovering.receive(
            lost, sign_release(signer(lost), recovering.unmasking.aggregation.context, altered(other, holder=lost))
        )


def test_a_dealer_that_shared_another_seed_than_its_keys_is_found_out():
    """Must: refuse the masks of the false seed. Must not: open a sum of noise, or blame those who kept its shares."""
    federation = Federation.open(5, rules=SHARING)
    session, lost = federation.session, federation.session.unmaskers[0]
    state = federation.collected()
    false = share(RoundSeed.generate().reveal(), 4, 5)
    for point, holder in enumerate(session.unmaskers):
        if holder != lost:
            promised = [share_commitment(session, 0, lost, holder, false[point])]
            federation.opening.commitments[lost, holder] = tuple(promised)
            federation.stores[holder]._connection.execute(
                "UPDATE share SET share = ? WHERE dealer = ? AND number = 0", (false[point], lost)
            )
    with refused(Code.E_SHARE):
        federation.recovered(state, [lost])


def test_memory_of_a_recovery_is_shares_and_one_vector():
    federation = Federation.open(5, rules=SHARING)
    recovering = recovering_of(federation, federation.collected(), federation.session.unmaskers[0])
    for holder in sorted(recovering.missing):
        recovering = recovering.receive(holder, federation.released(recovering, holder))
    assert {len(each) for shares in recovering.released.values() for each in shares} == {33}


def test_nothing_secret_prints():
    federation = Federation.open(5, rules=SHARING)
    recovering = recovering_of(federation, federation.collected(), federation.session.unmaskers[0])
    holder = max(recovering.missing)
    released = federation.released(recovering, holder)
    recovering = recovering.receive(holder, released)
    shown = f"{released!r} {recovering!r} {federation.stores[holder].shares!r}"
    assert repr(released.shares[0]) not in shown
    assert released.shares[0].hex() not in shown
    box = federation.opening.boxes[holder]
    assert repr(sealed_parcel(signer(1), federation.session, 1, box, [bytes(33)] * 4)) == "Parcel"
