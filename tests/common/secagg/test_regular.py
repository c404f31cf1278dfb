"""Who masks for whom, and which rules leave a lying coordinator too much: counted in other ways than in the code."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import chain, combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as altered

from common.errors import Code, Refusal
from common.randomness import child
from common.secagg import parse_manifest, sealed
from common.secagg.regular import (
    CHANCE,
    Lots,
    _tail,
    exposure,
    fewest_masked,
    ideal_masks,
    least_masks,
    maskers,
    smallest_sum,
)
from common.secagg.statements import check_session, maskers_of
from server.enrolment import open_session
from tests.secagg_federation import JOB, REGULAR, RULES, digest, manifest_of, signer


def refused(code: Code, said: str | None = None):
    return pytest.raises(Refusal, match=said, check=lambda error: error.code is code)


def lots(sites: int, unmaskers: int, masks: int, draw: int = 0) -> Lots:
    return Lots(digest("lots", draw), tuple(range(1, unmaskers + 1)), tuple(range(1, sites + 1)), masks)


@given(st.integers(0, 1000), st.data())
def test_a_site_masks_for_k_of_the_session_and_who_is_left_out_is_replaced_by_the_next(draw, data):
    """Must: keep every unmasking site of a smaller session that it had in a larger one."""
    made = lots(1, 12, 4, draw)
    fewer = tuple(sorted(data.draw(st.sets(st.sampled_from(made.unmaskers), min_size=4))))
    all_of_them, here = made.maskers(made.unmaskers, 1), made.maskers(fewer, 1)
    assert len(here) == 4
    assert set(all_of_them) & set(fewer) <= set(here) <= set(fewer)
    assert list(here) == sorted(here)


def test_masks_for_all_are_masks_in_the_order_of_the_session():
    assert maskers(bytes(32), (1, 2, 3, 5), (5, 1, 3), 3, 7) == (5, 1, 3)


def test_lots_are_spread_evenly_and_differ_from_site_to_site_and_from_manifest_to_manifest():
    made = lots(3000, 8, 3)
    seen = Counter(chain.from_iterable(made.maskers(made.unmaskers, site) for site in made.sites))
    assert all(abs(count - 3000 * 3 / 8) < 5 * (3000 * 3 / 8 * 5 / 8) ** 0.5 for count in seen.values())
    sets = Counter(made.maskers(made.unmaskers, site) for site in made.sites)
    assert len(sets) == comb(8, 3)
    other = lots(3000, 8, 3, draw=1)
    assert sum(made.maskers(made.unmaskers, i) == other.maskers(other.unmaskers, i) for i in made.sites) < 150


def test_no_mode_but_this_one_leaves_anyone_out():
    manifest = manifest_of(5)
    session = open_session(manifest, JOB, manifest.ids, range(2), sid=bytes(32), draw=child(1, "unmaskers"))
    assert all(maskers_of(manifest, session, site) == session.unmaskers for site in manifest.ids)


@pytest.mark.parametrize(("share", "masks"), [(0.05, 12), (0.10, 16), (0.20, 22), (0.33, 32)])
def test_the_rule_of_thumb_for_a_thousand_sites(share, masks):
    assert ideal_masks(1000, share) == masks


@given(
    st.integers(2, 7).flatmap(lambda m: st.tuples(st.just(m), st.integers(0, m), st.integers(0, m - 1))),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_exposure_is_what_counting_every_order_gives(sizes, masks, recovered):
    """Every choice of the corrupt ones among the first k + d, the coordinator dropping d and recovering r of them."""
    unmaskers, corrupt, away = sizes
    masks = min(masks, unmaskers - away)
    drawn = list(combinations(range(unmaskers), masks + away))
    bad = 0
    for first in drawn:
        honest = sum(each >= corrupt for each in first)
        bad += honest - min(away, honest) - recovered <= 0
    found = exposure(sites=1, unmaskers=unmaskers, corrupt=corrupt, masks=masks, away=away, recovered=recovered)
    assert found == Fraction(bad, len(drawn))


@given(st.integers(2, 5000), st.integers(4, 64), st.data())
def test_the_least_k_is_enough_and_one_less_is_not(sites, unmaskers, data):
    corrupt = data.draw(st.integers(0, unmaskers - 3))
    away = data.draw(st.integers(0, (unmaskers - corrupt - 2) // 2))
    recovered = data.draw(st.integers(0, unmaskers - corrupt - away - 1))
    about = {"sites": sites, "unmaskers": unmaskers, "corrupt": corrupt, "away": away, "recovered": recovered}
    least = least_masks(**about)
    assert exposure(masks=least, **about) <= CHANCE
    assert least == 2 or exposure(masks=least - 1, **about) > CHANCE


@pytest.mark.parametrize(
    ("changes", "enough"),
    [
        ({"masks_each": 2}, 3),
        ({"masks_each": 3, "corrupt_max": 4}, 5),
        ({"masks_each": 3, "lost_max": 1, "shares_min": 5}, 4),
    ],
)
def test_rules_that_may_leave_a_site_without_an_honest_unmasking_site_are_refused_with_the_k_that_does(changes, enough):
    rules = replace(REGULAR, **changes)
    with refused(Code.E_MANIFEST, f"at least {enough}"):
        manifest_of(10, rules)
    replace(rules, masks_each=enough).check(sites=10, orgs=10, unmaskers=6)


def test_unmasking_sites_that_a_session_may_leave_out_count_against_the_rules():
    REGULAR.check(sites=10, orgs=10, unmaskers=6)
    with refused(Code.E_MANIFEST, "masks_each"):
        replace(REGULAR, corrupt_max=4).check(sites=10, orgs=10, unmaskers=9)


def test_a_coordinator_that_names_other_lost_sites_to_every_holder_recovers_more_than_f():
    """m = 10, c = 3: 7 honest holders release 14 shares, and four of them with the corrupt ones' are a key."""
    rules = replace(REGULAR, unmaskers_min=10, corrupt_max=3, lost_max=2, shares_min=7)
    assert rules.recovered_max == 3
    assert replace(rules, shares_min=8).recovered_max == 2
    assert replace(rules, lost_max=0, shares_min=0).recovered_max == 0


def closed(made: Lots, known: set[int], each: int, colluding: set[int]) -> list[set[int]]:
    """Every set of sites whose sum a coordinator can open that knows the masks of `known`, by trying all."""
    graph = {site: set(made.maskers(made.unmaskers, site)) for site in made.sites}
    found = []
    for size in range(1, len(made.sites) + 1):
        for members in map(set, combinations(made.sites, size)):
            honest = members - colluding
            asked = set().union(*(graph[site] - known for site in honest)) if honest else set()
            if asked and all(sum(unmasker in graph[site] for site in members) >= each for unmasker in asked):
                found.append(members)
    return found


@pytest.mark.parametrize("draw", range(12))
@pytest.mark.parametrize(("colluding", "each"), [(0, 3), (2, 4)])
def test_no_closed_set_is_smaller_than_stated(draw, colluding, each):
    """Counted for every corrupt unmasking site, every colluding pair, and every set of nine sites."""
    made = lots(9, 5, 3, draw)
    stated = smallest_sum(made, size=5, known=1, each=each, colluding=colluding)
    least = min(
        len(members)
        for corrupt in made.unmaskers
        for liars in combinations(made.sites, colluding)
        for members in closed(made, {corrupt}, each, set(liars))[:1]
    )
    assert each <= stated <= least


def test_where_choices_are_too_many_chance_bounds_them_and_is_more_careful_than_counting(monkeypatch):
    """The same small federation both ways; and a large one against what its expected sizes alone would promise."""
    counted = [smallest_sum(lots(60, 10, 5, draw), size=10, known=1, each=18) for draw in range(5)]
    monkeypatch.setattr("common.secagg.regular.COUNTED", 0)
    bounded = [
        smallest_sum(replace(lots(60, 10, 5, draw), manifest=bytes([draw]) * 32), size=10, known=1, each=18)
        for draw in range(5)
    ]
    assert max(bounded) <= min(counted)
    assert min(bounded) >= 18
    share, size = expected_closed_set(sites=10**4, unmaskers=64, masks=16, honest=13, quorum=1000)
    assert (round(share, 3), int(size)) == (0.815, 702)
    promised = smallest_sum(lots(10**4, 64, 16), size=64, known=12, each=175)
    assert 175 < promised < size


def expected_closed_set(*, sites: int, unmaskers: int, masks: int, honest: int, quorum: int) -> tuple[float, float]:
    """Share of the unmasking sites that the smallest closed set takes, and its size, were every count its expectation.

    |T| · k_h >= rho · M · s_c, and about N · rho^k_h sites have all their k_h honest unmasking sites among these.
    """
    each = -(-7 * quorum * masks // (10 * unmaskers))
    share = (unmaskers * each / (sites * honest)) ** (1 / (honest - 1))
    return share, share * unmaskers * each / honest


def test_a_large_federation_keeps_more_than_half_its_quorum():
    made = lots(1000, 32, 16)
    found = [smallest_sum(made, size=32, known=3, each=-(-7 * quorum // 20), colluding=3) for quorum in (500, 600, 700)]
    assert all(500 + 100 * place < 2 * size for place, size in enumerate(found))
    assert found == sorted(found)
    assert smallest_sum(made, size=32, known=3, each=210, colluding=200) < found[1]


def test_a_manifest_whose_sums_could_be_less_than_half_the_quorum_is_refused():
    with refused(Code.E_MANIFEST, "less than half of 18"):
        manifest_of(20, replace(REGULAR, sites_max=20, unmaskers_min=10, quorum_min=18, masks_each=5, corrupt_max=3))


def test_a_manifest_with_an_unmasking_site_that_would_see_too_little_is_refused():
    manifest = manifest_of(10, REGULAR)
    assert fewest_masked(manifest.lots) >= REGULAR.reports_each(8)
    salts = [hashlib.sha256(bytes([place])).digest() for place in range(60)]
    with refused(Code.E_MANIFEST, "an unmasking site would see"):
        for salt in salts:
            replace(manifest, salt=salt)


@pytest.mark.parametrize(
    "changes",
    [{"masks_each": 1}, {"masks_each": 7}, {"masks_each": -1}, {"overlap_min": 2}],
    ids=str,
)
def test_settings_that_cannot_live_with_this_mode_are_refused(changes):
    with refused(Code.E_MANIFEST):
        replace(REGULAR, **changes)


def test_lots_need_a_salt_that_comes_last_and_no_other_mode_has_one():
    manifest = manifest_of(10, REGULAR)
    for salt in (b"", bytes(31)):
        with refused(Code.E_MANIFEST, "salt"):
            replace(manifest, salt=salt)
    with refused(Code.E_MANIFEST, "salt"):
        replace(manifest_of(10), salt=bytes(32))


def test_a_manifest_with_lots_is_read_back_and_one_without_is_spelled_as_before():
    governance, manifest = signer("governance"), manifest_of(10, REGULAR)
    assert parse_manifest(sealed(manifest, governance), governance.public) == manifest
    assert b'"masks_each":4' in sealed(manifest, governance)
    plain = sealed(manifest_of(10), governance)
    assert b"masks_each" not in plain
    assert b"salt" not in plain


def test_a_session_has_exactly_the_unmasking_sites_that_the_check_counted_on():
    manifest = manifest_of(10, REGULAR, unmaskers=range(1, 7))
    session = open_session(manifest, JOB, manifest.ids, range(2), sid=bytes(32), draw=child(1, "unmaskers"))
    wide = replace(RULES, masks_each=0)
    check_session(manifest, session)
    with refused(Code.E_POLICY):
        check_session(manifest, altered(session, unmaskers=session.unmaskers[:5]))
    more = manifest_of(10, replace(REGULAR, unmaskers_min=5), unmaskers=range(1, 7))
    with refused(Code.E_POLICY, "must have 5"):
        check_session(more, altered(session, manifest=more.digest))
    check_session(manifest_of(10, wide), altered(session, manifest=manifest_of(10, wide).digest))


@given(st.integers(1, 200), st.integers(1, 99), st.floats(1, 60))
def test_the_bound_for_the_most_sites_holds_for_the_binomial_itself_and_is_not_far_from_it(count, percent, nats):
    """Must: exceed it with chance e^-nats at most. Must not: be more than a tenth of all sites and five too careful."""
    share, most = Fraction(percent, 100), _tail(count, percent / 100, nats)
    chances = [comb(count, each) * share**each * (1 - share) ** (count - each) for each in range(count + 1)]
    assert sum(chances[most + 1 :]) <= Fraction(math.exp(-nats))
    exact = next(each for each in range(count + 1) if sum(chances[each + 1 :]) <= Fraction(math.exp(-nats)))
    assert exact <= most <= exact + count / 10 + 5
