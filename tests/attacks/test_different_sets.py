"""Different sets: one question for each unmasking site, or two questions to one of them."""

from __future__ import annotations

import itertools
from contextlib import suppress

import numpy as np
import pytest
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key

from client.secagg import unmask
from common.errors import Code
from server.secagg import Collecting
from simulations.bench.flower_round import Relay, play
from tests.attacks.opponents import (
    FIRST,
    NEAR,
    UNLIKELY,
    WIDE,
    chi_square,
    combination,
    flower_sites,
    masked_vector,
    pair_key,
    refused,
    shares_for,
    state_of,
    update_of,
    updates,
    without_masks,
)
from tests.secagg_federation import Federation


def both_secrets(stage, message):
    """Name the first site among the living and among the dead."""
    if stage == "unmask":
        record = message.content.config_records[RECORD_KEY_CONFIGS]
        record[Key.DEAD_NODE_ID_LIST] = [FIRST]
    return message


def test_on_flower_one_question_for_both_secrets_opens_a_single_sites_update():
    """Both secrets of one site (secaggplus_mod._unmask takes any two lists): private seed and pair key together."""
    vectors = updates(5)
    relay = Relay(flower_sites(vectors), tamper=both_secrets)
    with suppress(Exception):  # the honest half of the server stumbles over the extra shares
        play(relay, 5, 3)
    seed = combine_shares(shares_for(relay, FIRST, 0))
    private = combine_shares(shares_for(relay, FIRST, 1))
    pairs = {pair_key(private, state_of(site)["pk1"]): -1 for node, site in relay.sites.items() if node != FIRST}
    opened = update_of(without_masks(masked_vector(relay, FIRST), [seed], pairs), 100)
    np.testing.assert_allclose(opened, vectors[0], atol=NEAR)


def test_the_question_for_a_site_and_the_question_without_it_are_never_both_answered():
    """Both secrets: with and without the target. Whichever comes first is the only one, at every unmasking site."""
    for first in (slice(None), slice(1, None)):
        federation = Federation.open(5, codec=WIDE)
        state = federation.collected()
        for site in federation.session.unmaskers:
            members, store = state.members(site), federation.stores[site]
            unmask(store, state.aggregation, members[first])
            for second in (members, members[1:], members[2:], members[:-1]):
                if second != members[first]:
                    with refused(Code.E_SET):
                        unmask(store, state.aggregation, second)


def asked_apart(federation: Federation, first: slice, second: slice):
    """Reports of three sites, and the answers of both unmasking sites, each to a set of its own."""
    state = federation.collected()
    totals = [
        unmask(federation.stores[site], state.aggregation, state.members(site)[part])
        for site, part in zip(federation.session.unmaskers, (first, second), strict=True)
    ]
    return [federation.reports[site] for site in federation.manifest.ids], totals


@pytest.mark.parametrize("second", [slice(1, None), slice(None, -1)], ids=["without the first", "without the last"])
def test_no_combination_of_answers_to_different_sets_is_anything_but_noise(second):
    """Different sets (Bonawitz et al. 2017, section 6): all 242 sums with coefficients of -1, 0 and 1 are uniform."""
    federation = Federation.open(3, codec=WIDE)
    reports, totals = asked_apart(federation, slice(None), second)
    for times in itertools.product((-1, 0, 1), repeat=5):
        if any(times):
            lanes = combination(dict(enumerate(times)), [*reports, *totals])
            assert chi_square(lanes) < UNLIKELY, times


def test_only_the_sum_of_one_set_is_more_than_noise():
    """The same enumeration where nobody lied: nothing but the sum itself comes out."""
    federation = Federation.open(3, codec=WIDE)
    reports, totals = asked_apart(federation, slice(None), slice(None))
    opened = [
        times
        for times in itertools.product((-1, 0, 1), repeat=5)
        if any(times) and chi_square(combination(dict(enumerate(times)), [*reports, *totals])) > UNLIKELY
    ]
    assert sorted(opened) == [(-1, -1, -1, 1, 1), (1, 1, 1, -1, -1)]
    lanes = combination(dict(enumerate((1, 1, 1, -1, -1))), [*reports, *totals])
    assert WIDE.open_sum(lanes, 3).values.tolist() == [6] * WIDE.dimension


def test_answers_to_different_sets_do_not_pass_as_one_sum():
    """An honest coordinator that was given them, and one that skips its checks: E_SET, then E_SUM_CHECK."""
    federation = Federation.open(5, codec=WIDE)
    state = federation.collected()
    first, second = federation.session.unmaskers
    right = unmask(federation.stores[first], state.aggregation, state.members(first))
    wrong = unmask(federation.stores[second], state.aggregation, state.members(second)[1:])
    state = state.receive(first, right)
    with refused(Code.E_SET):
        state.receive(second, wrong)
    reports = [federation.reports[site] for site in federation.manifest.ids]
    lanes = combination(dict.fromkeys(range(5), 1) | {5: -1, 6: -1}, [*reports, right, wrong])
    assert chi_square(lanes) < UNLIKELY
    with refused(Code.E_SUM_CHECK):
        WIDE.open_sum(lanes, 5)


def test_sets_that_overlap_within_one_number_are_one_question_also_in_two_runs_of_the_coordinator():
    """A coordinator that forgot: it closes the round again with a report more, and is refused by all."""
    federation = Federation.open(5, codec=WIDE)
    aggregation = federation.aggregation()
    early = Collecting.open(aggregation, federation.manifest.ids)
    reports = {site: federation.report(site, aggregation) for site in federation.manifest.ids}
    late = Collecting.open(aggregation, federation.manifest.ids)
    for site, report in reports.items():
        late = late.receive(site, report)
        early = early.receive(site, report) if site != 5 else early
    assert federation.opened(early.close()).values[0] == 10
    closed = late.close()
    for site in federation.session.unmaskers:
        with refused(Code.E_SET):
            unmask(federation.stores[site], aggregation, closed.members(site))
