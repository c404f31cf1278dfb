"""Small cohorts: a sum of so few sites, or so near to another sum, that it gives one of them away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from msgspec.structs import replace as altered

from client.secagg import unmask
from common.errors import Code
from server.secagg import Collecting
from simulations.bench.flower_round import Relay, play
from tests.attacks.opponents import NEAR, WIDE, flower_sites, refused, updates
from tests.secagg_federation import RULES, Federation


def test_on_flower_two_sites_and_the_servers_own_threshold_are_enough():
    """Too small a cohort (num_samples < 2 is the only floor): the mean of two, one of whom sides with the server."""
    vectors = updates(2)
    outcome = play(Relay(flower_sites(vectors)), 1.0, 1.0)
    np.testing.assert_allclose(2 * outcome.mean - vectors[1], vectors[0], atol=NEAR)


def test_on_flower_every_site_takes_the_threshold_that_the_server_tells_it():
    """Threshold (Key.THRESHOLD of the setup message): a share or two rebuild every secret of six sites."""

    def lowered(stage, message):
        if stage == "setup":
            message.content.config_records[RECORD_KEY_CONFIGS][Key.THRESHOLD] = 2
        return message

    relay = Relay(flower_sites(updates(6)), tamper=lowered)
    assert play(relay, 6, 5).stopped is None
    assert not relay.errors


def test_on_flower_two_rounds_that_differ_in_one_site_give_its_update_away():
    """Difference of sums (So et al. 2023): no rule about cohorts, no noise."""
    vectors, means = updates(5), []
    for count in (5, 4):
        outcome = play(Relay(flower_sites(vectors[:count])), count, 3)
        means.append(count * outcome.mean)
    np.testing.assert_allclose(means[0] - means[1], vectors[4], atol=NEAR)


STRICT = replace(RULES, quorum_min=4, orgs_min=3, overlap_min=2)


def test_a_cohort_below_the_manifests_quorum_is_neither_closed_nor_unmasked():
    """Too small a cohort: an honest coordinator stops, a lying one is refused by each unmasking site."""
    federation = Federation.open(6, rules=STRICT)
    aggregation = federation.aggregation()
    state = Collecting.open(aggregation, federation.manifest.ids)
    for site in (1, 2, 3):
        state = state.receive(site, federation.report(site, aggregation))
    with refused(Code.E_TOO_FEW):
        state.close()
    whole = state.receive(4, federation.report(4, aggregation)).close()
    for site in federation.session.unmaskers:
        for size in range(4):
            with refused(Code.E_SET):
                unmask(federation.stores[site], aggregation, whole.members(site)[:size])


def test_one_site_does_not_make_a_cohort_by_being_listed_often():
    """Too small a cohort, filled up: repeats of one report, or of one report under the names of others."""
    federation = Federation.open(6, rules=STRICT)
    state = federation.collected(sites=[1, 2, 3, 4])
    site = federation.session.unmaskers[0]
    store, members = federation.stores[site], state.members(site)
    with refused(Code.E_DUP):
        unmask(store, state.aggregation, members[:1] * 4)
    renamed = tuple(altered(members[0], site=number) for number in range(1, 5))
    with refused(Code.E_SIG):
        unmask(store, state.aggregation, renamed)


def test_sites_of_one_organisation_are_not_a_cohort():
    """A cohort of one organisation and its own sites: the quorum counts organisations too."""
    federation = Federation.open(6, rules=STRICT, orgs=dict.fromkeys((1, 2, 3, 4), "trust"))
    site = federation.session.unmaskers[0]
    for present, code in (([1, 2, 3, 4, 5], Code.E_SET), ([1, 2, 3, 4, 5, 6], None)):
        number = len(present) - 5
        aggregation = federation.aggregation(number)
        state = Collecting.open(aggregation, federation.manifest.ids)
        for each in present:
            state = state.receive(each, federation.report(each, aggregation))
        if code is None:
            assert federation.opened(state.close()).count == 6
            continue
        with refused(Code.E_TOO_FEW):
            state.close()
        full = state.receive(6, federation.report(6, aggregation)).close()
        with refused(code):
            unmask(federation.stores[site], aggregation, full.members(site)[:5])


@pytest.mark.parametrize("fresh", [False, True], ids=["same session", "another session"])
@pytest.mark.parametrize("second", [range(1, 6), range(2, 7)], ids=["one fewer", "one fewer at the other end"])
def test_sums_that_differ_in_one_site_are_not_both_opened(fresh, second):
    """Difference of sums (So et al. 2023), in the same session and across sessions."""
    federation = Federation.open(6, rules=STRICT)
    federation.opened(federation.collected(0))
    later = federation.again(bytes([1] * 32)) if fresh else federation
    state = later.collected(1, sites=second)
    for site in later.session.unmaskers:
        if not fresh or site in federation.session.unmaskers:
            with refused(Code.E_SET):
                unmask(later.stores[site], state.aggregation, state.members(site))
    with refused(Code.E_HELPER_LOST):
        state.open(later.codec)


def test_a_set_may_come_again_or_change_in_enough_sites():
    """What the rule about overlap must not forbid: the same cohort round after round, and a really different one."""
    federation = Federation.open(6, rules=STRICT, codec=WIDE)
    assert federation.opened(federation.collected(0)).count == 6
    assert federation.opened(federation.collected(1)).count == 6
    assert federation.opened(federation.collected(2, sites=[1, 2, 3, 4])).count == 4
