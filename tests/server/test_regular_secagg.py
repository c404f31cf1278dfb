"""Masks for k of the unmasking sites: sums stay exact, sets that do not fit give garbage, and thin ones nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as altered

from client.secagg import mask_total, unmask
from common.errors import Code, Refusal
from common.secagg import IntegerCodec, reduce, unpack
from common.secagg.statements import maskers_of, verify_keys
from common.secagg.wire import Member
from server.recovery import Recovering
from server.secagg import Collecting, Unmasking, thin
from tests.secagg_federation import REGULAR, Federation, signer
from tests.server.test_secagg_leaks import WIDE, chi_square, combined

SPARING = replace(REGULAR, lost_max=1, shares_min=5)


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def masked_for(federation: Federation, unmasker: int) -> set[int]:
    return {
        site
        for site in federation.manifest.ids
        if unmasker in maskers_of(federation.manifest, federation.session, site)
    }


@settings(max_examples=40)
@given(data=st.data())
def test_the_sum_is_bit_exact_whatever_dropped_out_unless_an_unmasking_site_sees_too_little(data):
    rules = replace(REGULAR, suite=data.draw(st.sampled_from([1, 2]), "suite"))
    codec = IntegerCodec(dimension=data.draw(st.sampled_from([1, 3, 64, 1001]), "dimension"), sites_max=16)
    federation = Federation.open(10, rules=rules, codec=codec, numbers=1)
    present = data.draw(st.sets(st.integers(1, 10), min_size=8), "reporting sites")
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32), "vectors"))
    aggregation = federation.aggregation()
    state, expected = Collecting.open(aggregation, federation.manifest.ids), np.zeros(codec.dimension, np.int64)
    for site in data.draw(st.permutations(sorted(present)), "order of arrival"):
        vector = draw.choice([-codec.limit, -1, 0, 1, codec.limit], codec.dimension)
        expected += vector
        report = federation.report(site, aggregation, vector)
        assert len(report.ciphertexts) == (4 if rules.suite == 2 else 0)
        state = state.receive(site, report)
    if any(len(masked_for(federation, each) & present) < 4 for each in federation.session.unmaskers):
        with refused(Code.E_TOO_FEW):
            state.close()
        return
    opened = federation.opened(state.close())
    assert opened.count == len(present)
    np.testing.assert_array_equal(opened.values, expected)


def test_each_unmasking_site_sees_the_reports_that_are_masked_for_it_and_answers_for_these():
    federation = Federation.open(10, rules=REGULAR)
    state = federation.collected()
    for site in federation.session.unmaskers:
        assert {member.site for member in state.members(site)} == masked_for(federation, site)
    digests = {state.set_digest(site) for site in federation.session.unmaskers}
    assert len(digests) == len({frozenset(masked_for(federation, site)) for site in federation.session.unmaskers}) > 1


def test_a_total_for_another_unmasking_sites_part_is_not_taken():
    federation = Federation.open(10, rules=REGULAR)
    state = federation.collected()
    one, other, *_ = federation.session.unmaskers
    total = unmask(federation.stores[one], state.aggregation, state.members(one))
    with refused(Code.E_SET):
        state.receive(one, altered(total, set_digest=state.set_digest(other)))


def foreign(federation: Federation, state: Unmasking, site: int) -> Member:
    """A signed report that is masked for others than `site`."""
    return next(each.member for each in state.reports.values() if each.member.site not in masked_for(federation, site))


@pytest.mark.parametrize("borrowed", [True, False], ids=["with a ciphertext of it", "with none"])
def test_a_report_that_is_not_masked_for_this_site_is_refused_and_uses_nothing_up(borrowed: bool):
    federation = Federation.open(10, rules=REGULAR)
    state, site = federation.collected(), federation.session.unmaskers[0]
    stranger = foreign(federation, state, site)
    if borrowed:
        stranger = altered(stranger, ciphertext=state.reports[stranger.site].ciphertexts[0])
    members = sorted([*state.members(site), stranger], key=lambda member: member.site)
    with refused(Code.E_SET):
        unmask(federation.stores[site], state.aggregation, members)
    assert unmask(federation.stores[site], state.aggregation, state.members(site)).unmasker == site


def test_a_thin_part_of_a_set_is_refused_and_the_least_that_is_enough_is_answered():
    """s_c = ceil(0.7 · 8 · 4 / 6) = 4."""
    federation = Federation.open(10, rules=REGULAR)
    state = federation.collected()
    site = max(federation.session.unmaskers, key=lambda each: len(state.members(each)))
    with refused(Code.E_SET):
        unmask(federation.stores[site], state.aggregation, state.members(site)[:3])
    assert unmask(federation.stores[site], state.aggregation, state.members(site)[:4]).unmasker == site


def test_organisations_are_counted_in_the_part_that_is_seen():
    """o_min = 6 asks three of each part; two sites of one organisation and two of another are not enough."""
    rules = replace(REGULAR, orgs_min=6)
    orgs = {number: f"org-{number // 2}" for number in range(1, 11)}
    federation = Federation.open(10, rules=rules, orgs=orgs)
    state = federation.collected()
    assert rules.orgs_each == 3
    assert replace(rules, orgs_min=2).orgs_each == 2
    assert replace(rules, orgs_min=1).orgs_each == 1
    few = [
        (site, chosen)
        for site in federation.session.unmaskers
        for chosen in combinations(state.members(site), 4)
        if len({orgs[member.site] for member in chosen}) == 2
    ]
    site, chosen = few[0]
    with refused(Code.E_SET):
        unmask(federation.stores[site], state.aggregation, chosen)


def test_a_cohort_that_leaves_an_unmasking_site_too_little_is_not_asked():
    federation = Federation.open(10, rules=REGULAR)
    aggregation = federation.aggregation()
    cohorts = [set(each) for each in combinations(federation.manifest.ids, 8)]
    few = next(each for each in cohorts if thin(federation.manifest, federation.session, each, 8))
    with refused(Code.E_TOO_FEW):
        Collecting.open(aggregation, few)
    assert thin(federation.manifest, federation.session, federation.manifest.ids, 10)


@pytest.mark.parametrize("spoil", [lambda own: own[1:], lambda own: (*own, own[0])], ids=["one less", "one more"])
def test_a_report_with_another_number_of_ciphertexts_is_refused(spoil):
    federation = Federation.open(10, rules=REGULAR)
    report = federation.report(1, federation.aggregation())
    with refused(Code.E_KEY):
        Collecting.open(federation.aggregation(), federation.manifest.ids).receive(
            1, altered(report, ciphertexts=spoil(report.ciphertexts))
        )


def test_a_site_looks_at_the_keys_it_uses_and_not_at_those_of_others():
    federation = Federation.open(10, rules=REGULAR)
    about, keys = (federation.manifest, federation.session, 0), federation.keys()
    for place, key in enumerate(keys):
        spoiled = [*keys[:place], altered(key, signature=bytes(64)), *keys[place + 1 :]]
        for site in federation.manifest.ids:
            if key.unmasker in maskers_of(federation.manifest, federation.session, site):
                with refused(Code.E_SIG):
                    verify_keys(*about, spoiled, site)
            else:
                verify_keys(*about, spoiled, site)
        with refused(Code.E_KEY):
            verify_keys(*about, [*keys[:place], *keys[place + 1 :]], 1)


@pytest.mark.parametrize("left_out", [0, 2, 5])
def test_unmasking_sites_that_were_shown_sets_that_do_not_fit_reveal_nothing(left_out: int):
    """Must: garbage and E_SUM_CHECK, with or without the report that one of them was not shown."""
    federation = Federation.open(10, rules=REGULAR, codec=WIDE)
    state, liar = federation.collected(), federation.session.unmaskers[left_out]
    parts = {site: state.members(site) for site in federation.session.unmaskers}
    target = parts[liar][-1].site
    parts[liar] = parts[liar][:-1]
    totals = [unmask(federation.stores[site], state.aggregation, members) for site, members in parts.items()]
    for added in (set(range(1, 11)), set(range(1, 11)) - {target}, {target}):
        lanes = combined(federation, added, totals)
        assert chi_square(lanes[: WIDE.dimension]) < 400
        with refused(Code.E_SUM_CHECK):
            WIDE.open_sum(lanes, len(added))


def test_one_honest_unmasking_site_of_its_own_keeps_a_report_masked():
    federation = Federation.open(10, rules=REGULAR, codec=WIDE)
    state = federation.collected()
    own = maskers_of(federation.manifest, federation.session, 1)
    seeds = {site: federation.stores[site].seed(federation.session.sid, 0) for site in own[1:]}
    alone = [each.member for each in state.reports.values() if each.member.site == 1]
    totals = [
        mask_total(signer(site), state.aggregation, seed, [altered(alone[0], ciphertext=ciphertext)])
        for (site, seed), ciphertext in zip(seeds.items(), state.reports[1].ciphertexts[1:], strict=True)
    ]
    assert chi_square(combined(federation, [1], totals)[: WIDE.dimension]) < 400
    seed = federation.stores[own[0]].seed(federation.session.sid, 0)
    first = altered(alone[0], ciphertext=state.reports[1].ciphertexts[0])
    last = mask_total(signer(own[0]), state.aggregation, seed, [first])
    assert (combined(federation, [1], [*totals, last])[:9] == 1).all()


def closed_sets(federation: Federation, known: Collection[int], size: int) -> Sequence[set[int]]:
    """Sets of sites whose parts are thick enough for every unmasking site but the known ones."""
    honest = [site for site in federation.session.unmaskers if site not in known]
    parts = {site: masked_for(federation, site) for site in honest}
    found = []
    for members in map(set, combinations(federation.manifest.ids, size)):
        asked = [part & members for part in parts.values() if part & members]
        if all(len(part) >= 4 for part in asked):
            found.append(members)
    return found


def test_a_lying_coordinator_opens_a_closed_set_below_the_quorum_and_none_below_the_stated_size():
    """The limit of this mode, played: two corrupt unmasking sites, the others answer for parts of seven reports."""
    federation = Federation.open(10, rules=REGULAR)
    stated = federation.manifest.smallest_sum(8)
    sets = [(known, each) for known in combinations(range(1, 7), 2) for each in closed_sets(federation, known, 7)]
    known, members = sets[0]
    aggregation, state = federation.aggregation(), federation.collected()
    totals = []
    for site in federation.session.unmaskers:
        seen = [member for member in state.members(site) if member.site in members]
        seed = federation.stores[site].seed(federation.session.sid, 0)
        made = mask_total(signer(site), aggregation, seed, seen) if site in known else None
        totals.append(made or unmask(federation.stores[site], aggregation, seen))
    lanes = federation.codec.ring.zeros()
    for site in members:
        lanes += unpack(federation.codec.ring, federation.reports[site].body)
    for total in totals:
        lanes -= unpack(federation.codec.ring, total.body)
    opened = federation.codec.open_sum(reduce(federation.codec.ring, lanes), len(members))
    assert opened.values[0] == sum(members)
    assert 4 <= stated <= len(members) < REGULAR.quorum_min
    for size in range(1, stated):
        assert not any(closed_sets(federation, known, size) for known in combinations(range(1, 7), 2))


@settings(max_examples=15)
@given(st.integers(1, 6), st.sets(st.integers(1, 10), max_size=1))
def test_a_lost_unmasking_site_is_recovered_from_holders_that_answered_for_different_sets(lost, late):
    federation = Federation.open(10, rules=SPARING)
    sites = sorted(set(federation.manifest.ids) - late)
    if thin(federation.manifest, federation.session, sites, 8):
        return
    state = federation.recovered(federation.collected(sites=sites), [lost])
    assert (state.open(federation.codec).values == sum(sites)).all()


def test_shares_for_another_holders_set_are_not_taken():
    federation = Federation.open(10, rules=SPARING)
    state = federation.answered(federation.collected(), range(2, 7))
    recovering = Recovering.open(federation.opening, state)
    release = federation.released(recovering, 2)
    with refused(Code.E_SET):
        recovering.receive(2, altered(release, set_digest=state.set_digest(3)))
    assert recovering.receive(2, release).released
