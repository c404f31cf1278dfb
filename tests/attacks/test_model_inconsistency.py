"""Model inconsistency: the target is shown one model, all others another, so that the sum is the target's update."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord

from client.secagg import mask_total, unmask
from common.errors import Code
from common.secagg.statements import member_of
from server.secagg import Collecting
from simulations.bench.flower_round import FlowerSite, Relay, play
from tests.attacks.opponents import FIRST, NEAR, UNLIKELY, WIDE, chi_square, combination, refused, updates
from tests.secagg_federation import Federation, digest, signer

REAL, DEAD = digest("the model"), digest("a model without gradients")


def test_on_flower_sites_with_a_dead_model_add_nothing_to_the_targets_update():
    """Gradient suppression (Pasquini et al. 2022): masks are not bound to the model that a site was given."""
    vectors = updates(5)

    def suppress(stage, message):
        if stage == "collect_masked_vectors" and message.metadata.dst_node_id != FIRST:
            name = next(iter(message.content.array_records))
            message.content.array_records[name] = ArrayRecord([np.full(1, -1.0, np.float32)])
        return message

    sites = {
        FIRST + place: FlowerSite(FIRST + place, lambda model, row=row: row * (model[0] >= 0), 100)
        for place, row in enumerate(vectors)
    }
    outcome = play(Relay(sites, tamper=suppress), 5, 3)
    np.testing.assert_allclose(5 * outcome.mean, vectors[0], atol=NEAR)


def shown_apart(federation: Federation):
    """The target's report under the real model, the others' under the dead one; both aggregations."""
    real, dead = federation.aggregation(binding=REAL), federation.aggregation(binding=DEAD)
    reports = {1: federation.report(1, real)}
    for site in federation.manifest.ids[1:]:
        reports[site] = federation.report(site, dead)
    return real, dead, reports


@pytest.mark.parametrize("claimed", [REAL, DEAD], ids=["the target's model", "the others' model"])
def test_a_set_of_reports_over_two_models_is_refused_whichever_model_is_claimed(claimed):
    """Gradient suppression: every signature of a set must hold under one context, which contains the model."""
    federation = Federation.open(5, codec=WIDE)
    _, _, reports = shown_apart(federation)
    aggregation = federation.aggregation(binding=claimed)
    for place, site in enumerate(federation.session.unmaskers):
        members = tuple(member_of(report, place) for report in reports.values())
        with refused(Code.E_MODEL if site in reports and (claimed is REAL) != (site == 1) else Code.E_SIG):
            unmask(federation.stores[site], aggregation, members)
        assert federation.stores[site].answered(federation.session.sid, 0) is None


def test_an_honest_coordinator_adds_no_report_of_another_model():
    federation = Federation.open(5, codec=WIDE)
    real, _, reports = shown_apart(federation)
    state = Collecting.open(real, federation.manifest.ids).receive(1, reports[1])
    for site in (2, 3, 4, 5):
        with refused(Code.E_SIG):
            state.receive(site, reports[site])
    with refused(Code.E_TOO_FEW):
        state.close()


@pytest.mark.parametrize("claimed", [REAL, DEAD], ids=["the target's model", "the others' model"])
def test_masks_for_one_model_do_not_come_off_reports_of_another(claimed):
    """Gradient suppression with unmasking sites that check nothing: the masks themselves are of another model."""
    federation = Federation.open(3, codec=WIDE)
    seeds = {site: federation.stores[site].seed(bytes(32), 0) for site in federation.session.unmaskers}
    _, _, reports = shown_apart(federation)
    aggregation = federation.aggregation(binding=claimed)
    totals = [
        mask_total(signer(site), aggregation, seed, [member_of(report, place) for report in reports.values()])
        for place, (site, seed) in enumerate(seeds.items())
    ]
    lanes = combination(dict(enumerate((1, 1, 1, -1, -1))), [*reports.values(), *totals])
    assert chi_square(lanes) < UNLIKELY
    with refused(Code.E_SUM_CHECK):
        WIDE.open_sum(lanes, 3)


def test_one_model_is_summed_once_so_that_a_second_number_gives_no_second_sum():
    """Two sums over one model, of two sets: what differs between them is a few sites' update."""
    federation = Federation.open(5, codec=WIDE)
    federation.opened(federation.collected(0, binding=REAL))
    with refused(Code.E_MODEL):
        federation.collected(1, sites=[1, 2, 3], binding=REAL)
    federation.colluding = True
    state = federation.collected(1, sites=[1, 2, 3], binding=REAL)
    for site in federation.session.unmaskers:
        with refused(Code.E_MODEL):
            unmask(federation.stores[site], state.aggregation, state.members(site))
