"""Strangers and liars: ids that nobody knows, and answers that are not what was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from msgspec.structs import replace as altered

from client.secagg import masked_report, unmask
from common.errors import Code
from common.identity import Signer
from common.secagg import Manifest
from common.secagg.statements import member_of, sign_total
from server.secagg import Collecting
from simulations.bench.flower_round import FlowerSite, Relay, play
from tests.attacks.opponents import FIRST, WIDE, flower_sites, refused, updates
from tests.secagg_federation import Federation, entry, signer


class Liar(FlowerSite):
    """One site of Flower's that changes its own last answer."""

    lie = staticmethod(lambda record: None)

    def answer(self, message):
        reply = super().answer(message)
        if "unmask" in self.seconds:
            self.lie(reply.content.config_records[RECORD_KEY_CONFIGS])
        return reply


def unknown(record):
    record[Key.NODE_ID_LIST] = [*record[Key.NODE_ID_LIST][:-1], 999]


def cut(record):
    record[Key.SHARE_LIST] = [share[:-3] for share in record[Key.SHARE_LIST]]


@pytest.mark.parametrize(("lie", "error"), [(unknown, KeyError), (cut, ValueError)])
def test_on_flower_one_lying_site_brings_the_server_down(lie, error):
    """Unknown id, bad share (secaggplus_workflow.unmask_stage): exceptions that nobody catches."""
    sites = flower_sites(updates(5))
    sites[FIRST] = Liar(FIRST, sites[FIRST].train, 100)
    sites[FIRST].lie = lie
    with pytest.raises(error):
        play(Relay(sites), 5, 3)


def test_a_stranger_is_not_added_and_not_unmasked_with_others():
    """Unknown id: an identity that the manifest does not name, under a free id and under a site's."""
    federation = Federation.open(4, codec=WIDE)
    state = Collecting.open(federation.aggregation(), [1, 2, 3])
    for site in (1, 2, 3):
        state = state.receive(site, federation.report(site, federation.aggregation()))
    stranger = Signer.generate()
    with_stranger = replace(
        federation.manifest, sites=(*federation.manifest.sites, replace(entry(9), identity=stranger.public))
    )
    aggregation = replace(state.aggregation)
    object.__setattr__(aggregation, "manifest", with_stranger)  # as if the stranger had a manifest of its own
    encoded = WIDE.encode(np.zeros(WIDE.dimension, np.int64))
    report = masked_report(stranger, aggregation, federation.keys(), encoded, X25519PrivateKey.generate())
    closed = state.close()
    for place, site in enumerate(federation.session.unmaskers):
        for claimed, code in ((9, Code.E_MANIFEST), (4, Code.E_SIG)):
            member = member_of(altered(report, site=claimed), place)
            with refused(code):
                unmask(federation.stores[site], state.aggregation, (*closed.members(site), member))
    for claimed in (4, 9):
        with refused(Code.E_SET):
            state.receive(claimed, altered(report, site=claimed))
    assert federation.opened(closed).count == 3


def test_a_site_that_was_struck_from_the_manifest_is_not_in_any_later_sum():
    """Revoked: under the new manifest the session has another digest, and the site no entry."""
    federation = Federation.open(5)
    old = federation.report(5, federation.aggregation())
    kept: Manifest = replace(
        federation.manifest, version=2, sites=federation.manifest.sites[:4], unmaskers=(1, 2, 3, 4)
    )
    with refused(Code.E_MANIFEST):
        replace(federation.aggregation(), manifest=kept)
    later = replace(federation, manifest=kept).again(bytes([1] * 32))
    with refused(Code.E_MANIFEST):
        later.report(5, later.aggregation())
    with refused(Code.E_MANIFEST):
        Collecting.open(later.aggregation(), [1, 2, 5])
    with refused(Code.E_SET):
        Collecting.open(later.aggregation(), [1, 2, 3]).receive(5, old)


LIES = [
    ("a total of its own making", Code.E_SUM_CHECK, lambda total: altered(total, body=bytes(len(total.body)))),
    ("one lane changed", None, lambda total: altered(total, body=b"\1" + total.body[1:])),
    ("too short", Code.MESSAGE_INVALID, lambda total: altered(total, body=total.body[:-3])),
    ("too long", Code.MESSAGE_INVALID, lambda total: altered(total, body=total.body + bytes(3))),
    ("of another set", Code.E_SET, lambda total: altered(total, set_digest=bytes(32))),
]


@pytest.mark.parametrize(("code", "lie"), [case[1:] for case in LIES], ids=[case[0] for case in LIES])
def test_a_lying_unmasking_site_spoils_at_most_the_sum_and_is_named_by_its_signature(code, lie):
    """Malicious unmasking site: refused with a code, or, where it lies within the format, found by the sum check.

    One value lane changed passes: no check lane covers the values, so who may unmask is trusted not to do that. The
    signed total stays as evidence.
    """
    federation = Federation.open(4, codec=WIDE)
    state = federation.collected()
    liar, honest = federation.session.unmaskers
    total = lie(unmask(federation.stores[liar], state.aggregation, state.members(liar)))
    signed = sign_total(signer(liar), state.aggregation.context, total)
    other = unmask(federation.stores[honest], state.aggregation, state.members(honest))
    if code is None:
        opened = state.unmask([signed, other], WIDE)
        assert (opened.values[1:] == 10).all()
        return
    with refused(code):
        state.unmask([signed, other], WIDE)
