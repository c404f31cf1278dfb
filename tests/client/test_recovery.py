"""What an unmasking site refuses when shares of lost sites are to be released, whatever the coordinator asks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.recovery import release
from client.secagg import unmask
from common.errors import Code, Refusal
from tests.secagg_federation import SHARING, Federation, digest

OTHER = bytes([9] * 32)


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def asked(lost: int = 0, number: int = 0):
    """A holder that answered, the aggregation, the set's digest, and the unmasking site called lost."""
    federation = Federation.open(6, rules=SHARING)
    state = federation.collected(number)
    sites = federation.session.unmaskers
    federation.answered(state, [site for site in sites if site != sites[lost]])
    return federation, state, sites[lost], next(site for site in sites if site != sites[lost])


def test_the_same_release_gives_the_same_bytes_and_another_choice_is_refused():
    """Must: answer a repeated order. Must not: release shares of two sites under one number where f = 1."""
    federation, state, lost, holder = asked()
    store, others = federation.stores[holder], [site for site in federation.session.unmaskers if site != holder]
    first = release(store, state.aggregation, state.set_digest(holder), (lost,))
    assert release(store, state.aggregation, state.set_digest(holder), (lost,)) == first
    for other in others[1:]:
        with refused(Code.E_SET):
            release(store, state.aggregation, state.set_digest(holder), (other,))


def test_a_choice_of_lost_sites_outside_the_rules_is_refused_and_uses_nothing_up():
    federation, state, lost, holder = asked()
    store, sites = federation.stores[holder], federation.session.unmaskers
    other = next(site for site in federation.manifest.ids if site not in sites)
    for choice in ((), tuple(sorted(set(sites) - {holder}))[:2], (holder,), (other,), (99,)):
        with refused(Code.E_POLICY):
            release(store, state.aggregation, state.set_digest(holder), choice)
    assert store.shares.released(federation.session.sid, 0) is None
    assert release(store, state.aggregation, state.set_digest(holder), (lost,)).lost == (lost,)


def test_two_lost_sites_come_ascending_and_once():
    federation = Federation.open(7, rules=replace(SHARING, unmaskers_min=7, lost_max=2, shares_min=5))
    state = federation.answered(federation.collected(), federation.session.unmaskers)
    for choice in ((2, 1), (1, 1), (1, 2, 4)):
        with refused(Code.E_POLICY):
            release(federation.stores[3], state.aggregation, state.set_digest(3), choice)
    assert len(release(federation.stores[3], state.aggregation, state.set_digest(3), (1, 2)).shares) == 2


def test_shares_complete_only_the_sum_that_this_site_answered_for():
    """Must not: release before it has seen and answered the signed reports, or for another set or model."""
    federation = Federation.open(6, rules=SHARING)
    state = federation.collected()
    holder, lost = federation.session.unmaskers[:2]
    store = federation.stores[holder]
    with refused(Code.E_ROUND):
        release(store, state.aggregation, state.set_digest(holder), (lost,))
    unmask(store, state.aggregation, state.members(holder))
    with refused(Code.E_SET):
        release(store, state.aggregation, OTHER, (lost,))
    with refused(Code.E_SET):
        release(store, federation.aggregation(binding=digest("another")), state.set_digest(holder), (lost,))
    with refused(Code.E_ROUND):
        release(store, federation.aggregation(1), state.set_digest(holder), (lost,))
    assert release(store, state.aggregation, state.set_digest(holder), (lost,)).holder == holder


def test_a_site_that_was_recovered_still_answers_one_set_only():
    """Its masks are known then, but what it says must not be a second answer."""
    federation, state, lost, holder = asked()
    release(federation.stores[holder], state.aggregation, state.set_digest(holder), (lost,))
    members = state.members(lost)
    unmask(federation.stores[lost], state.aggregation, members[:-1])
    with refused(Code.E_SET):
        unmask(federation.stores[lost], state.aggregation, members)
    with refused(Code.E_SET):
        unmask(federation.stores[holder], state.aggregation, state.members(holder)[:-1])


@pytest.mark.parametrize("act", ["report", "answer"])
def test_shares_of_a_number_are_gone_with_the_first_act_under_a_larger_one(act):
    federation, state, lost, holder = asked(number=1)
    store, sid = federation.stores[holder], federation.session.sid
    assert store.shares.share(sid, 0, lost) is None
    assert store.shares.share(sid, 1, lost) is not None
    if act == "report":
        federation.report(holder, federation.aggregation(2))
    else:
        later = federation.collected(2, sites=[site for site in federation.manifest.ids if site != holder])
        unmask(store, later.aggregation, later.members(holder))
    with refused(Code.E_ROUND):
        release(store, state.aggregation, state.set_digest(holder), (lost,))
    assert store.shares.share(sid, 1, lost) is None
    assert store.shares.share(sid, 2, lost) is not None


@pytest.mark.parametrize("act", ["enrolment", "report", "forget"])
def test_shares_of_a_session_are_gone_with_the_next(act):
    federation, state, lost, holder = asked()
    store = federation.stores[holder]
    if act == "forget":
        store.forget(federation.session.sid)
    elif act == "enrolment":
        federation.again(OTHER)
    else:
        later = Federation.open(6, rules=SHARING).again(OTHER)
        replace(later, stores=later.stores | {holder: store}).report(holder, later.aggregation())
    assert store.shares.share(federation.session.sid, 3, lost) is None
    with refused(Code.E_ROUND):
        release(store, state.aggregation, state.set_digest(holder), (lost,))


ORDER = st.tuples(st.sampled_from(["answer", "release", "report"]), st.integers(0, 2), st.sampled_from([1, 2, 3, 4]))


@settings(max_examples=40, deadline=None)
@given(st.lists(ORDER, max_size=14))
def test_whatever_is_asked_in_whatever_order_one_choice_of_lost_sites_a_number_is_served(orders):
    """Must not: release for two choices, for a number never answered, or for one that is over."""
    federation = Federation.open(5, rules=SHARING, numbers=3)
    holder = federation.session.unmaskers[-1]
    store, states = federation.stores[holder], {}
    for number in range(3):
        others = [site for site in federation.manifest.ids if site != holder]
        states[number] = federation.collected(number, sites=others)
    answered, released, newest = set(), {}, 0
    for kind, number, lost in orders:
        state = states[number]
        try:
            if kind == "answer":
                unmask(store, state.aggregation, state.members(holder))
                answered.add(number)
            elif kind == "report":
                federation.report(holder, federation.aggregation(number, state.aggregation.binding))
            else:
                release(store, state.aggregation, state.set_digest(holder), (lost,))
                assert number in answered
                assert number >= newest
                assert released.setdefault(number, lost) == lost
                continue
        except Refusal as refusal:
            assert refusal.code in {Code.E_ROUND, Code.E_SET}  # noqa: PT017
        else:
            newest = max(newest, number)
