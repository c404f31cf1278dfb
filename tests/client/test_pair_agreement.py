"""Which sets a site signs in an attempt by pairwise masks, and when it reveals which shares: never both of one peer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as altered

from client.pairing import Pairing
from common.errors import Code, Refusal
from common.secagg.pairwise.attempt import endorse
from common.secagg.pairwise.wire import Endorsement
from tests.pairwise_federation import RULES, PairFederation
from tests.secagg_federation import digest, signer


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


@pytest.fixture
def federation() -> PairFederation:
    return PairFederation.open(5, 4)


def signatures(federation: PairFederation, survivors, *sites: int) -> tuple[Endorsement, ...]:
    """What these sites would sign if they were asked, or are corrupt."""
    attempt = federation.attempt()
    return tuple(Endorsement(site=site, signature=endorse(signer(site), attempt, survivors)) for site in sites)


def masked(federation: PairFederation):
    federation.masked(federation.dealt(federation.advertised(federation.attempt())))
    return federation.place(federation.attempt())


SETS = [
    ("below the threshold", lambda ids: ids[:3]),
    ("empty", lambda ids: ()),
    ("without this site", lambda ids: ids[1:]),
    ("out of order", lambda ids: ids[::-1]),
    ("an id twice", lambda ids: (ids[0], *ids)),
    ("an unknown id", lambda ids: (*ids, 99)),
]


@pytest.mark.parametrize("change", [case[1] for case in SETS], ids=[case[0] for case in SETS])
def test_a_set_outside_the_rules_is_not_signed(federation, change):
    place = masked(federation)
    with refused(Code.E_SET):
        federation.sites[1].agree(*place, change(federation.manifest.ids))
    federation.sites[1].agree(*place, federation.manifest.ids)


def test_a_survivor_that_shares_no_mask_is_not_signed_for(federation):
    """Its vector would be added without the mask that hides this site's."""
    lossy = federation.losing(deal=[5])
    lossy.masked(lossy.dealt(lossy.advertised(federation.attempt())))
    with refused(Code.E_SET):
        federation.sites[1].agree(*federation.place(federation.attempt()), federation.manifest.ids)


def test_one_set_is_signed(federation):
    place = masked(federation)
    federation.sites[1].agree(*place, (1, 2, 3, 4))
    for second in ((1, 2, 3, 5), (1, 2, 3, 4, 5), (1, 2, 3, 4)):
        with refused(Code.E_ROUND):
            federation.sites[1].agree(*place, second)


def test_sites_that_were_shown_different_sets_reveal_nothing(federation):
    """Different survivor sets: one of two groups is below the threshold; here both are. A corrupt site signs both."""
    place = masked(federation)
    for site, survivors in ((1, (1, 2, 3, 4)), (2, (1, 2, 3, 4)), (3, (1, 3, 4, 5)), (4, (1, 3, 4, 5))):
        federation.sites[site].agree(*place, survivors)
    for site, survivors, others in ((1, (1, 2, 3, 4), (1, 2, 4)), (3, (1, 3, 4, 5), (3, 4, 5))):
        with refused(Code.E_SET):
            federation.sites[site].reveal(*place, signatures(federation, survivors, *others))


ENDORSEMENTS = [
    ("none", Code.E_SET, lambda f: ()),
    ("fewer than the threshold", Code.E_SET, lambda f: signatures(f, (1, 2, 3, 4, 5), 1, 2, 3)),
    ("of another set", Code.E_SIG, lambda f: signatures(f, (1, 2, 3, 4), 1, 2, 3, 4)),
    ("one twice", Code.E_SET, lambda f: signatures(f, (1, 2, 3, 4, 5), 1, 2, 3, 3)),
    ("out of order", Code.E_SET, lambda f: signatures(f, (1, 2, 3, 4, 5), 4, 3, 2, 1)),
    ("forged", Code.E_SIG, lambda f: (Endorsement(site=1, signature=bytes(64)), *everybody(f)[1:])),
    ("in another's name", Code.E_SIG, lambda f: (altered(everybody(f)[1], site=1), *everybody(f)[1:])),
    ("of an unknown site", Code.E_SET, lambda f: (*everybody(f), Endorsement(site=99, signature=bytes(64)))),
]


def everybody(federation: PairFederation) -> tuple[Endorsement, ...]:
    return signatures(federation, (1, 2, 3, 4, 5), 1, 2, 3, 4, 5)


@pytest.mark.parametrize(("code", "given_"), [c[1:] for c in ENDORSEMENTS], ids=[c[0] for c in ENDORSEMENTS])
def test_no_share_leaves_before_enough_peers_signed_the_same_set(federation, code, given_):
    place = masked(federation)
    federation.sites[1].agree(*place, federation.manifest.ids)
    with refused(code):
        federation.sites[1].reveal(*place, given_(federation))
    assert federation.stores[1].answered(*place) is None
    assert len(federation.sites[1].reveal(*place, everybody(federation))) == 5


def test_the_threshold_is_that_of_rules_and_cohort_and_nothing_in_an_order_can_lower_it():
    """Flower's server sends the threshold; here no order has a field for it."""
    federation = PairFederation.open(5, 5, rules=replace(RULES, unmaskers_min=4, corrupt_max=3))
    assert federation.attempt().shape.threshold == 5
    place = masked(federation)
    federation.sites[1].agree(*place, federation.manifest.ids)
    with refused(Code.E_SET):
        federation.sites[1].reveal(*place, everybody(federation)[:4])


def test_of_a_survivor_its_own_mask_of_a_lost_site_its_pair_seed_and_nothing_twice(federation):
    lossy = federation.losing(mask=[5])
    agreeing = lossy.masked(lossy.dealt(lossy.advertised(federation.attempt())))
    held = federation.sites[1]._stage.held
    revealing = lossy.agreed(agreeing)
    place = federation.place(federation.attempt())
    shares = {each.dealer: each.share for each in federation.sites[1].reveal(*place, revealing.endorsements(1))}
    assert shares == {site: held[site].pair if site == 5 else held[site].own for site in (1, 2, 3, 4, 5)}
    with refused(Code.E_ROUND):
        federation.sites[1].reveal(*place, revealing.endorsements(1))
    with refused(Code.E_ROUND):
        federation.sites[1].agree(*place, federation.manifest.ids)


def test_a_restarted_site_has_nothing_left_to_reveal(federation):
    place = masked(federation)
    federation.sites[1].agree(*place, federation.manifest.ids)
    restarted = Pairing(federation.stores[1])
    for ask in (
        lambda: restarted.agree(*place, federation.manifest.ids),
        lambda: restarted.reveal(*place, everybody(federation)),
    ):
        with refused(Code.E_ROUND):
            ask()


def test_a_newer_attempt_ends_the_older_one(federation):
    place = masked(federation)
    federation.sites[1].advertise(federation.attempt(1), federation.encoded(1))
    with refused(Code.E_ROUND):
        federation.sites[1].agree(*place, federation.manifest.ids)


def test_one_binding_is_opened_once(federation):
    attempt = federation.attempt(0, binding=digest("model"))
    federation.played(attempt)
    with refused(Code.E_MODEL):
        federation.sites[1].advertise(federation.attempt(1, binding=digest("model")), federation.encoded(1))


def test_sets_that_differ_in_too_few_sites_are_not_signed():
    federation = PairFederation.open(6, 4, rules=replace(RULES, overlap_min=2))
    federation.sum(0)
    lossy = federation.losing(mask=[6])
    with refused(Code.E_SET):
        lossy.agreed(lossy.masked(lossy.dealt(lossy.advertised(federation.attempt(1)))))
    assert federation.losing(mask=[5, 6]).sum(2).count == 4


QUESTION = st.one_of(
    st.tuples(st.just("agree"), st.sets(st.integers(1, 5), min_size=3)),
    st.tuples(st.just("reveal"), st.sets(st.integers(1, 5), min_size=3)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(QUESTION, max_size=10), st.booleans())
def test_whatever_is_asked_in_whatever_order_no_site_reveals_both_secrets_of_another(questions, lost):
    """Must: reveal for one set, all of whose signers agree. Must not: two shares of one dealer, or a second set."""
    federation = PairFederation.open(5, 4)
    lossy = federation.losing(mask=[5] if lost else [])
    lossy.masked(lossy.dealt(lossy.advertised(federation.attempt())))
    held, place = federation.sites[1]._stage.held, federation.place(federation.attempt())
    revealed: list[dict[int, bytes]] = []
    signed: list[tuple[int, ...]] = []
    for kind, chosen in questions:
        survivors = tuple(sorted(chosen))
        try:
            if kind == "agree":
                federation.sites[1].agree(*place, survivors)
                signed.append(survivors)
            else:
                shares = federation.sites[1].reveal(*place, signatures(federation, survivors, *survivors))
                revealed.append({each.dealer: each.share for each in shares})
        except Refusal as refusal:
            assert refusal.code in (Code.E_SET, Code.E_SIG, Code.E_ROUND)  # noqa: PT017
    assert len(signed) <= 1
    assert len(revealed) <= len(signed)
    for shares in revealed:
        for dealer, share in shares.items():
            assert share == (held[dealer].own if dealer in signed[0] else held[dealer].pair)
