"""Drop-outs: sites that leave at the worst moment, whether they mean to or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.secagg import unmask
from common.errors import Code
from common.secagg import IntegerCodec, Rules
from server.secagg import Collecting
from simulations.bench.flower_round import Relay, play
from tests.attacks.opponents import FIRST, NEAR, flower_sites, refused, updates
from tests.secagg_federation import Federation


@pytest.mark.parametrize("stage", ["setup", "share_keys"])
def test_on_flower_one_site_that_leaves_before_it_shared_its_keys_ends_the_round_for_all(stage):
    """Early drop-out (secaggplus_mod._unmask: KeyError for a share that never came)."""
    relay = Relay(flower_sites(updates(6)), lost={stage: {FIRST}})
    assert play(relay, 6, 3).stopped == "unmask"
    assert {type(error) for error in relay.errors} == {KeyError}


def test_on_flower_a_site_that_leaves_later_is_survived():
    """The one moment that Flower's workflow is made for; the attacks here do not come from a broken test bed."""
    vectors = updates(6)
    relay = Relay(flower_sites(vectors), lost={"collect_masked_vectors": {FIRST}})
    np.testing.assert_allclose(play(relay, 6, 3).mean, vectors[1:].mean(axis=0), atol=NEAR)


def test_on_flower_an_even_number_of_shares_never_works():
    """Off by one (secaggplus_workflow raises the number after telling the sites): IndexError at every site."""
    relay = Relay(flower_sites(updates(8)))
    assert play(relay, 4, 3).stopped == "share_keys"
    assert {type(error) for error in relay.errors} == {IndexError}


MOMENT = st.sampled_from(["never asked", "asked", "reported", "late"])


@settings(max_examples=40)
@given(moments=st.lists(MOMENT, min_size=2, max_size=30), bits=st.sampled_from([16, 20, 24, 28, 32]), data=st.data())
def test_whenever_sites_leave_the_sum_is_that_of_those_who_reported(moments, bits, data):
    """Drop-outs at every step, up to 30 sites: an exact sum, or E_TOO_FEW and nothing revealed."""
    count = len(moments)
    rules = Rules(unmaskers_min=2, quorum_min=2, orgs_min=1, sites_max=32, corrupt_max=1, overlap_min=1, suite=1)
    codec = IntegerCodec(dimension=data.draw(st.integers(1, 9)), sites_max=32, bits=bits)
    federation = Federation.open(count, rules=rules, codec=codec, numbers=1)
    aggregation = federation.aggregation()
    when = dict(zip(federation.manifest.ids, moments, strict=True))
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    state = Collecting.open(aggregation, federation.manifest.ids)
    expected, late = np.zeros(codec.dimension, np.int64), {}
    for site in [site for site, moment in when.items() if moment in ("reported", "late")]:
        vector = draw.integers(-codec.limit, codec.limit + 1, codec.dimension)
        report = federation.report(site, aggregation, vector)
        if when[site] == "late":
            late[site] = report
        else:
            state, expected = state.receive(site, report), expected + vector
    if len(state.reports) < 2:
        with refused(Code.E_TOO_FEW):
            state.close()
        return
    closed = state.close()
    for site, report in late.items():  # its masks are in nobody's answer; the old state cannot be revived
        assert site in state.missing
        assert report.signature not in [member.signature for member in closed.members(federation.session.unmaskers[0])]
    opened = federation.opened(closed)
    assert opened.count == list(when.values()).count("reported")
    np.testing.assert_array_equal(opened.values, expected)


def test_an_unmasking_site_that_leaves_reveals_nothing_and_may_come_back():
    """Drop-out of an unmasking site between report and answer: no sum, then the same sum once it is back."""
    federation = Federation.open(4)
    state = federation.collected()
    first, second = federation.session.unmaskers
    state = state.receive(first, unmask(federation.stores[first], state.aggregation, state.members(first)))
    with refused(Code.E_HELPER_LOST):
        state.open(federation.codec)
    state = state.receive(second, unmask(federation.stores[second], state.aggregation, state.members(second)))
    assert state.open(federation.codec).values[0] == 10
