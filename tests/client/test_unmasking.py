"""What an unmasking site refuses to open, whatever the coordinator asks and in whatever order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as altered

from client.secagg import unmask
from common.errors import Code, Refusal
from common.secagg import Ring, Rules, record_digest
from common.secagg.statements import member_of, sign_report
from server.secagg import Collecting
from tests.secagg_federation import RULES, Federation, digest, signer

OTHER = bytes([9] * 32)


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def asked(federation: Federation, **options):
    state = federation.collected(**options)
    site = federation.session.unmaskers[0]
    return federation.stores[site], state.aggregation, state.members(site)


def test_the_same_set_gets_the_same_bytes_and_a_second_set_is_refused():
    """Must: answer a repeated question. Must not: answer two questions under one number."""
    store, aggregation, members = asked(Federation.open(4))
    total = unmask(store, aggregation, members)
    assert unmask(store, aggregation, members) == total
    for second in (members[:-1], members[1:], members[:2]):
        with refused(Code.E_SET):
            unmask(store, aggregation, second)
    assert unmask(store, aggregation, members) == total


def test_a_refused_set_uses_nothing_up():
    store, aggregation, members = asked(Federation.open(4))
    with refused(Code.E_SET):
        unmask(store, aggregation, members[:1])
    assert unmask(store, aggregation, members).unmasker in aggregation.session.unmaskers


SETS = [
    ("one report", Code.E_SET, lambda members: members[:1]),
    ("empty", Code.E_SET, lambda members: ()),
    ("out of order", Code.E_SET, lambda members: members[::-1]),
    ("an id twice", Code.E_DUP, lambda members: (members[0], *members)),
    ("an unknown id", Code.E_MANIFEST, lambda members: (*members, altered(members[0], site=99))),
    ("a forged signature", Code.E_SIG, lambda members: (altered(members[0], signature=bytes(64)), *members[1:])),
    ("another's signature", Code.E_SIG, lambda m: (altered(m[0], signature=m[1].signature), *m[1:])),
    ("another one-time key", Code.E_SIG, lambda members: (altered(members[0], exchange=OTHER), *members[1:])),
    ("another vector", Code.E_SIG, lambda members: (altered(members[0], body_digest=OTHER), *members[1:])),
    ("another's report under its name", Code.E_SIG, lambda m: (m[0], altered(m[2], site=m[1].site), m[2])),
    ("another ciphertext", Code.E_KEY, lambda m: (altered(m[0], ciphertext=m[1].ciphertext), *m[1:])),
    ("no ciphertext", Code.E_KEY, lambda members: (altered(members[0], ciphertext=None), *members[1:])),
    ("too few digests", Code.E_KEY, lambda m: (altered(m[0], ciphertext_digests=m[0].ciphertext_digests[:1]), *m[1:])),
]


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in SETS], ids=[case[0] for case in SETS])
def test_a_set_that_is_not_whole_and_signed_is_refused(code, change):
    store, aggregation, members = asked(Federation.open(3))
    with refused(code):
        unmask(store, aggregation, change(members))
    assert store.answered(aggregation.session.sid, 0) is None


def test_a_set_of_too_few_organisations_is_refused():
    federation = Federation.open(4, rules=replace(RULES, orgs_min=2), orgs={1: "trust", 2: "trust"})
    store, aggregation, members = asked(federation)
    with refused(Code.E_SET):
        unmask(store, aggregation, members[:2])
    unmask(store, aggregation, members[1:3])


def test_reports_of_two_models_cannot_be_unmasked_together():
    federation = Federation.open(4)
    store, aggregation, members = asked(federation, sites=[1, 2, 3])
    other = federation.aggregation(binding=digest("another model"))
    report = federation.report(4, other)
    foreign = member_of(report, federation.session.unmaskers.index(federation.session.unmaskers[0]))
    with refused(Code.E_SIG):
        unmask(store, aggregation, (*members, foreign))


@pytest.mark.parametrize("bits", [16, 24])
def test_reports_of_one_ring_are_not_unmasked_in_another(bits):
    """Masks of 32 bits that are summed as halves of 16 tell their carries, and by these how single reports compare."""
    store, aggregation, members = asked(Federation.open(4))
    lanes = aggregation.ring.lanes
    for ring in (Ring(bits, 2 * lanes), Ring(bits, lanes), Ring(32, lanes + 4)):
        with refused(Code.E_SIG):
            unmask(store, replace(aggregation, ring=ring), members)
    unmask(store, aggregation, members)


def test_a_site_that_trained_one_model_does_not_unmask_another():
    """Model inconsistency: an unmasking site that reported knows what the round was about."""
    federation = Federation.open(4)
    site = federation.session.unmaskers[0]
    federation.report(site, federation.aggregation())
    others = [other for other in federation.manifest.ids if other != site]
    state = federation.collected(sites=others, binding=digest("another model"))
    with refused(Code.E_MODEL):
        unmask(federation.stores[site], state.aggregation, state.members(site))


def test_one_binding_is_opened_once_in_any_session():
    federation = Federation.open(4)
    federation.opened(federation.collected(binding=digest("model")))
    federation.colluding = True
    for later, number in ((federation, 1), (None, 0)):
        later = later or federation.again(OTHER)
        state = later.collected(number, binding=digest("model"))
        site = later.session.unmaskers[0]
        with refused(Code.E_MODEL):
            unmask(later.stores[site], state.aggregation, state.members(site))


def test_a_round_that_nobody_answered_may_be_repeated():
    """As another attempt at it, with a binding of its own: no site reports under one binding twice."""
    federation = Federation.open(4)
    federation.collected(binding=digest("model", "attempt 0"))
    with refused(Code.E_MODEL):
        federation.collected(1, binding=digest("model", "attempt 0"))
    assert federation.opened(federation.collected(2, binding=digest("model", "attempt 1"))).count == 4


def test_sets_that_differ_in_too_few_sites_are_refused():
    """Difference of two rounds (So et al. 2023): with overlap_min = 2 no one site is left over, in any session."""
    federation = Federation.open(5, rules=replace(RULES, overlap_min=2))
    federation.opened(federation.collected(0))
    federation.opened(federation.collected(1))
    for later in (federation, None):
        later = later or federation.again(OTHER)
        state = later.collected(2, sites=[1, 2, 3, 4])
        site = later.session.unmaskers[0]
        with refused(Code.E_SET):
            unmask(later.stores[site], state.aggregation, state.members(site))
    assert later.opened(later.collected(3, sites=[1, 2, 3])).count == 3


def test_sets_of_groups_are_held_against_the_whole_attempt_before():
    """Must: refuse a set near one of the last attempt as the last group of the next one, too; and near one of its own.

    Must not: let go of a set because other groups of the attempt were answered before.
    """
    federation = Federation.open(9, rules=replace(RULES, overlap_min=2), numbers=9)
    federation.colluding = True  # they report in several groups of an attempt

    def answer(number: int, sites: list[int]) -> None:
        aggregation = replace(federation.aggregation(number), groups=3)
        state = Collecting.open(aggregation, federation.manifest.ids)
        for site in sites:
            state = state.receive(site, federation.report(site, aggregation))
        site = federation.session.unmaskers[0]
        unmask(federation.stores[site], aggregation, state.close().members(site))

    for number, sites in enumerate(([1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 4, 7])):
        answer(number, sites)
    for number, near in ((4, [1, 2]), (5, [1, 4])):
        with refused(Code.E_SET):
            answer(number, near)
    for number, sites in ((6, [2, 3]), (7, [4, 5, 6])):  # two attempts later it is over
        answer(number, sites)


def test_a_number_whose_seed_is_erased_is_not_unmasked():
    federation = Federation.open(3)
    earlier = federation.collected(0)
    federation.opened(federation.collected(1))
    site = federation.session.unmaskers[0]
    with refused(Code.E_ROUND):
        unmask(federation.stores[site], earlier.aggregation, earlier.members(site))


def test_a_site_that_the_session_does_not_name_unmasks_nothing():
    federation = Federation.open(4)
    state = federation.collected()
    other = next(site for site in federation.manifest.ids if site not in federation.session.unmaskers)
    with refused(Code.E_ROUND):
        unmask(federation.stores[other], state.aggregation, state.members(federation.session.unmaskers[0]))


def test_a_signed_report_with_a_key_of_small_order_is_refused_and_not_answered():
    federation = Federation.open(3)
    store, aggregation, members = asked(federation)
    weak = altered(federation.reports[1], exchange=bytes(32))
    member = member_of(sign_report(signer(1), aggregation.context, weak), 0)
    with refused(Code.E_KEY):
        unmask(store, aggregation, (member, *members[1:]))
    unmask(store, aggregation, members)


def test_a_refusal_carries_a_code_and_no_secret():
    store, aggregation, members = asked(Federation.open(3))
    seed = store.seed(aggregation.session.sid, 0)
    with pytest.raises(Refusal) as caught:
        unmask(store, aggregation, members[:1])
    assert seed.reveal().hex() not in str(caught.value)
    assert repr(seed) == "RoundSeed"
    assert record_digest(aggregation.session).hex() not in repr(store)


def test_rules_of_the_manifest_and_not_the_coordinator_set_the_quorum():
    rules = Rules(unmaskers_min=2, quorum_min=4, orgs_min=1, sites_max=16, corrupt_max=1, overlap_min=0)
    store, aggregation, members = asked(Federation.open(5, rules=rules))
    with refused(Code.E_SET):
        unmask(store, aggregation, members[:3])


def outcome_of(store, aggregation, members) -> str:
    try:
        unmask(store, aggregation, members)
    except Refusal as refusal:
        return refusal.code
    return "answered"


QUESTION = st.tuples(st.integers(0, 3), st.sets(st.integers(1, 4)))


@settings(max_examples=60)
@given(st.lists(QUESTION, max_size=12))
def test_whatever_is_asked_in_whatever_order_one_set_a_number_is_answered(questions):
    """Must: answer every legal first question. Must not: answer a second set, or a number that is over."""
    federation = Federation.open(4)
    site = federation.session.unmaskers[0]
    store, members, given_answers = federation.stores[site], {}, {}
    for number in range(4):
        state = Collecting.open(federation.aggregation(number), federation.manifest.ids)
        for other in (other for other in federation.manifest.ids if other != site):
            state = state.receive(other, federation.report(other, federation.aggregation(number)))
        members[number] = state.close().members(site)
    for number, wanted in questions:
        chosen = tuple(member for member in members[number] if member.site in wanted)
        newest = max(given_answers, default=-1)
        legal = len(chosen) >= 2 and (number > newest or (number == newest and given_answers[number] == chosen))
        outcome = outcome_of(store, federation.aggregation(number), chosen)
        assert outcome in ({"answered"} if legal else {Code.E_SET, Code.E_ROUND})
        if legal:
            given_answers[number] = chosen
        assert min(store.seeds(federation.session.sid), default=4) == max(given_answers, default=-1) + 1
