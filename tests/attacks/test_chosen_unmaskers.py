"""Chosen unmasking sites: the adversary decides who holds what opens a site's report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from msgspec.structs import replace as altered

from client.secagg import enrol, mask_total
from common.errors import Code
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
    state_of,
    update_of,
    updates,
    without_masks,
)
from tests.secagg_federation import RULES, Federation, signer

CORRUPT = (FIRST + 1, FIRST + 2)


def surrounded(stage, message):
    """Show the first site no neighbours but the two corrupt ones (secaggplus_workflow shuffles on the server)."""
    record = message.content.config_records.get(RECORD_KEY_CONFIGS, ConfigRecord())
    if message.metadata.dst_node_id == FIRST and stage == "share_keys":
        for node in [name for name in record if name != Key.STAGE and int(name) not in (FIRST, *CORRUPT)]:
            del record[node]
    if message.metadata.dst_node_id == FIRST and stage == "collect_masked_vectors":
        kept = [place for place, node in enumerate(record[Key.SOURCE_LIST]) if node in CORRUPT]
        for key in (Key.SOURCE_LIST, Key.CIPHERTEXT_LIST):
            record[key] = [record[key][place] for place in kept]
    return message


def test_on_flower_a_site_that_is_shown_corrupt_neighbours_only_is_opened_alone():
    """Graph chosen by the adversary: neighbours are whom the server names, the threshold is what it says."""
    vectors = updates(6)
    relay = Relay(flower_sites(vectors), lost={"unmask": range(FIRST, FIRST + 6)}, tamper=surrounded)
    play(relay, 6, 2)
    held = [state_of(relay.sites[node]) for node in CORRUPT]
    own = [dict(zip(state["rd_seed_share_dict:K"], state["rd_seed_share_dict:V"], strict=True)) for state in held]
    seed = combine_shares([shares[FIRST] for shares in own])
    public = state_of(relay.sites[FIRST])["pk1"]
    opened = without_masks(masked_vector(relay, FIRST), [seed], {pair_key(state["sk1"], public): -1 for state in held})
    np.testing.assert_allclose(update_of(opened, 100), vectors[0], atol=NEAR)


SESSIONS = [
    ("fewer than the manifest asks for", lambda session, _: altered(session, unmaskers=session.unmaskers[:1])),
    ("one of them twice", lambda session, _: altered(session, unmaskers=session.unmaskers[:1] * 2)),
    ("a stranger among them", lambda session, _: altered(session, unmaskers=(session.unmaskers[0], 99))),
    ("one that may not unmask", lambda session, _: altered(session, unmaskers=(session.unmaskers[0], 6))),
    ("others than the session began with", lambda session, other: altered(session, unmaskers=other)),
]


@pytest.mark.parametrize("change", [case[1] for case in SESSIONS], ids=[case[0] for case in SESSIONS])
def test_unmasking_sites_outside_the_manifest_or_exchanged_midway_are_refused_by_all(change):
    """Unmasking sites chosen by the adversary: the manifest says who may be, a session's first record binds."""
    federation = Federation.open(6, codec=WIDE)
    federation.manifest = replace(federation.manifest, unmaskers=(1, 2, 3, 4))
    federation = federation.again(bytes([1] * 32))
    site = federation.session.unmaskers[0]
    federation.report(site, federation.aggregation())
    other = tuple(number for number in (1, 2, 3, 4) if number not in federation.session.unmaskers)
    changed = change(federation.session, (site, other[0]))
    with refused(Code.E_POLICY):
        enrol(federation.stores[site], federation.manifest, changed)
    federation.session = changed
    with refused(Code.E_POLICY):
        federation.report(site, federation.aggregation(1))


def test_all_unmasking_sites_but_one_learn_nothing_with_the_coordinator():
    """One honest unmasking site suffices: the others open the target's masks, what is left is uniform."""
    rules = replace(RULES, unmaskers_min=5, corrupt_max=4)
    federation = Federation.open(6, rules=rules, codec=WIDE)
    seeds = {site: federation.stores[site].seed(bytes(32), 0) for site in federation.session.unmaskers}
    state = federation.collected()
    target = federation.reports[1]
    for honest in seeds:
        masks = [
            mask_total(signer(site), state.aggregation, seed, state.members(site)[:1])
            for site, seed in seeds.items()
            if site != honest
        ]
        lanes = combination(dict(enumerate((1, -1, -1, -1, -1))), [target, *masks])
        assert chi_square(lanes) < UNLIKELY
        with refused(Code.E_SUM_CHECK):
            WIDE.open_sum(lanes, 1)


def test_the_limit_of_the_promise_is_where_the_manifest_says():
    """All unmasking sites corrupt, against `corrupt_max`: then a single report is open, and has to be."""
    federation = Federation.open(4, codec=WIDE)
    seeds = {site: federation.stores[site].seed(bytes(32), 0) for site in federation.session.unmaskers}
    state = federation.collected()
    masks = [mask_total(signer(site), state.aggregation, seed, state.members(site)[:1]) for site, seed in seeds.items()]
    lanes = combination({0: 1, 1: -1, 2: -1}, [federation.reports[1], *masks])
    assert WIDE.open_sum(lanes, 1).values.tolist() == [1] * WIDE.dimension
