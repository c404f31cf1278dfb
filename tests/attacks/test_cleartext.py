"""Cleartext beside the masks: weights and metrics of single sites."""

from __future__ import annotations

import struct

import numpy as np
from flwr.compat.common import recorddict_compat as compat
from hypothesis import given, settings
from hypothesis import strategies as st

from client.secagg import mask
from common.errors import Code, Refusal
from common.frames import pack
from common.messages import Refused, Reported, seal
from common.randomness import ReplayEntropy
from common.secagg import RangeCodec
from server.secagg import Collecting
from simulations.bench.flower_round import Relay, play
from tests.attacks.opponents import FIRST, NEAR, flower_sites, updates
from tests.secagg_federation import Federation, signer


def test_on_flower_every_reply_names_its_number_of_examples_and_its_metrics():
    """Weight disclosure (secaggplus_mod clears the arrays only): the docstring promises masked weights."""
    weights = [311, 42, 7, 97, 810]
    relay = Relay(flower_sites(updates(5), weights))
    assert play(relay, 5, 3).stopped is None
    for node, reply in relay.replies["collect_masked_vectors"].items():
        seen = compat.recorddict_to_fitres(reply, keep_input=True)
        assert (seen.num_examples, seen.metrics) == (weights[node - FIRST], {"accuracy": 0.5})


CODEC = RangeCodec(dimension=200, bits=32, sites_max=16, bound=1.0, weight_cap=10_000, metrics=1)


def reported(federation: Federation, site: int, records: int, metric: float):
    vector = np.random.default_rng(site).uniform(-1, 1, CODEC.dimension).astype(np.float32)
    encoded = CODEC.encode(vector, ReplayEntropy(site, "report"), records=records, metrics=(metric,))
    return vector, mask(federation.stores[site], federation.aggregation(), federation.keys(), encoded)


def spellings(*numbers: float) -> list[bytes]:
    """Plain ways in which numbers of a site could stand in a message; shorter ones occur by chance."""
    forms = {
        struct.pack(form, int(each) if form[1] == "q" else each) for form in ("<d", ">d", "<q") for each in numbers
    }
    return [form for form in forms | {str(each).encode() for each in numbers} if len(set(form)) > 4]


@settings(max_examples=20)
@given(records=st.integers(2**20, 2**30), metric=st.floats(0.01, 0.99), head=st.binary(min_size=32, max_size=32))
def test_a_report_names_neither_weight_nor_metric_nor_any_value(records, metric, head):
    """Weight disclosure: whatever a site holds, its sealed reply is of one size and spells none of it."""
    federation = Federation.open(3, codec=CODEC)
    vector, report = reported(federation, 1, records, metric)
    sealed = seal(1, Reported(order=bytes(32), report=report, epsilon=0.5, head=head), signer(1))
    lanes = CODEC.encode(vector, ReplayEntropy(1, "report"), records=records, metrics=(metric,)).lanes
    values = [lanes[first : first + 2].tobytes() for first in range(0, CODEC.dimension, 2)]
    floats = [vector[first : first + 2].tobytes() for first in range(0, CODEC.dimension, 2)]
    for form in [*spellings(records, metric), *values, *floats]:
        assert form not in sealed
    _, small = reported(federation, 2, 1, 0.0)
    assert len(pack(small)) == len(pack(report))


def test_weights_and_metrics_are_known_as_sums_and_only_so():
    federation = Federation.open(4, codec=CODEC)
    state = Collecting.open(federation.aggregation(), federation.manifest.ids)
    for site, records in zip(federation.manifest.ids, (10, 200, 3_000, 40_000), strict=True):
        _, report = reported(federation, site, records, site / 4)
        state = state.receive(site, report)
    opened = federation.opened(state.close())
    np.testing.assert_allclose(CODEC.weight(opened), (10 + 200 + 3_000 + 10_000) / 10_000, atol=NEAR)
    weights = np.array([10, 200, 3_000, 10_000])
    np.testing.assert_allclose(CODEC.metric_means(opened)[0], weights @ np.arange(1, 5) / 4 / weights.sum(), atol=NEAR)


def test_a_refusal_on_the_wire_is_a_code_and_nothing_else():
    """What an exception says may quote a record: only its code has a field, and no text fits into it."""
    error = Refusal(Code.UPDATE_INVALID, "value 0.123456", "it holds 0.987654", "look at 31.4159")
    sealed = seal(1, Refused(order=bytes(32), code=error.code.value, reference="0a1b"), signer(1))
    for word in ("0.123456", "0.987654", "31.4159", "value", "holds"):
        assert word.encode() not in sealed
    assert set(Refused.__struct_fields__) == {"order", "code", "reference"}
