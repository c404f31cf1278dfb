"""Bad input: malformed, oversized, of another length, wrongly signed, of an unknown suite."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as altered

from client.secagg import enrol, mask, unmask
from common.errors import Code, Refusal
from common.frames import pack, unpack
from common.messages import (
    AnyOrder,
    EnrolOrder,
    Members,
    Reported,
    UnmaskOrder,
    open_order,
    open_reply,
    order_digest,
    seal,
)
from common.secagg.statements import member_of, sign_report
from common.secagg.wire import MaskedReport, SessionRecord
from server.secagg import Collecting
from tests.attacks.opponents import WIDE, refused
from tests.secagg_federation import Federation, signer

LIMIT = 2**20


class Scene:
    """A round under way: sites 2 … 5 have reported; site 1 or the coordinator is about to send something bad."""

    def __init__(self) -> None:
        self.federation = Federation.open(5, codec=WIDE)
        self.aggregation = self.federation.aggregation()
        self.report = self.federation.report(1, self.aggregation)
        self.state = Collecting.open(self.aggregation, self.federation.manifest.ids)
        for site in (2, 3, 4, 5):
            self.state = self.state.receive(site, self.federation.report(site, self.aggregation))
        self.site = self.federation.session.unmaskers[0]

    def receive(self, report: MaskedReport) -> None:
        self.state.receive(1, report)

    def signed(self, **changes: object) -> MaskedReport:
        return sign_report(signer(1), self.aggregation.context, altered(self.report, **changes))

    def read(self, data: bytes) -> None:
        self.receive(unpack(MaskedReport, data, LIMIT))

    def ask(self, members: tuple) -> None:
        unmask(self.federation.stores[self.site], self.aggregation, members)

    def members(self) -> tuple:
        return self.state.close().members(self.site)

    def snapshot(self) -> tuple[object, ...]:
        stores = tuple("\n".join(store._connection.iterdump()) for store in self.federation.stores.values())
        return stores, self.state.total._lanes.tobytes(), frozenset(self.state.reports)

    def finish(self) -> None:
        """The round goes on as if nothing had come."""
        self.state = self.state.receive(1, self.report)
        assert self.federation.opened(self.state.close()).values.tolist() == [15] * WIDE.dimension


def refit(report: MaskedReport, find: bytes, put: bytes) -> bytes:
    data = pack(report)
    assert data.count(find) == 1
    return data.replace(find, put)


BAD = {
    "nothing": (Code.MESSAGE_INVALID, lambda s: s.read(b"")),
    "another format": (Code.MESSAGE_INVALID, lambda s: s.read(b"{}" * 1000)),
    "half a message": (Code.MESSAGE_INVALID, lambda s: s.read(pack(s.report)[:30_000])),
    "more than a message": (Code.MESSAGE_INVALID, lambda s: s.read(pack(s.report) + b"\0")),
    "an unknown field": (Code.MESSAGE_INVALID, lambda s: s.read(refit(s.report, b"\xa4body", b"\xa4bodi"))),
    "a number as text": (Code.MESSAGE_INVALID, lambda s: s.read(refit(s.report, b"\xa6number\0", b"\xa6number\xa0"))),
    "nested without end": (Code.MESSAGE_INVALID, lambda s: s.read(b"HF\1" + b"\x91" * 500_000)),
    "a length that lies": (Code.MESSAGE_INVALID, lambda s: s.read(b"HF\1\xc6\xff\xff\xff\xff")),
    "another version": (Code.MESSAGE_VERSION, lambda s: s.read(b"HF\2" + pack(s.report)[3:])),
    "too large": (Code.MESSAGE_TOO_LARGE, lambda s: s.read(bytes(LIMIT + 1))),
    "a body too short": (Code.MESSAGE_INVALID, lambda s: s.receive(s.signed(body=s.report.body[:-3]))),
    "a body too long": (Code.MESSAGE_INVALID, lambda s: s.receive(s.signed(body=s.report.body + bytes(3)))),
    "no body": (Code.MESSAGE_INVALID, lambda s: s.receive(s.signed(body=b""))),
    "a body of another width": (Code.MESSAGE_INVALID, lambda s: s.receive(s.signed(body=bytes(4 * WIDE.ring.lanes)))),
    "another site's signature": (
        Code.E_SIG,
        lambda s: s.receive(sign_report(signer(2), s.aggregation.context, s.report)),
    ),
    "no signature": (Code.E_SIG, lambda s: s.receive(altered(s.report, signature=bytes(64)))),
    "no ciphertexts, as in suite 1": (Code.E_KEY, lambda s: s.receive(s.signed(ciphertexts=()))),
    "too many ciphertexts": (Code.E_KEY, lambda s: s.receive(s.signed(ciphertexts=s.report.ciphertexts * 2))),
    "another site's name": (Code.E_SET, lambda s: s.receive(s.signed(site=2))),
    "another number": (Code.E_ROUND, lambda s: s.receive(s.signed(number=1))),
    "a set of everybody, often": (Code.E_SET, lambda s: s.ask(s.members() * 4096)),
    "a set with one signature changed": (
        Code.E_SIG,
        lambda s: s.ask((altered(s.members()[0], signature=bytes(64)), *s.members()[1:])),
    ),
    "a session of the weaker suite": (
        Code.E_POLICY,
        lambda s: enrol(s.federation.stores[s.site], s.federation.manifest, altered(s.federation.session, suite=1)),
    ),
    "an unknown suite": (
        Code.MESSAGE_INVALID,
        lambda s: unpack(SessionRecord, pack(altered(s.federation.session, suite=3)), LIMIT),
    ),
    "keys of another suite": (
        Code.E_KEY,
        lambda s: mask(
            s.federation.stores[1],
            s.federation.aggregation(1),
            tuple(altered(key, kem=None) for key in s.federation.keys(1)),
            WIDE.encode(np.zeros(WIDE.dimension, np.int64)),
        ),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_its_code_changes_nothing_and_costs_nobody_the_round(name, capsys):
    """Must: a typed code, soon (the time is printed). Must not: touch a store, the sum, or another site's report."""
    code, act = BAD[name]
    scene = Scene()
    before, begun = scene.snapshot(), time.process_time()
    with refused(code):
        act(scene)
    took = 1e3 * (time.process_time() - begun)
    with capsys.disabled():
        sys.stdout.write(f"  {name}: {code} within {took:.1f} ms\n")
    assert scene.snapshot() == before
    scene.finish()


SAMPLE = Federation.open(3)
ROUND = SAMPLE.collected()
REPORT = pack(SAMPLE.reports[1])
ORDERS = [
    seal(0, order, signer("coordinator"))
    for order in (
        EnrolOrder(run=bytes(16), job=b"job", session=SAMPLE.session),
        UnmaskOrder(
            run=bytes(16),
            job=b"job",
            task="train",
            session=SAMPLE.session,
            sets=(
                Members(
                    number=0,
                    binding=ROUND.aggregation.binding,
                    members=ROUND.members(SAMPLE.session.unmaskers[0]),
                ),
            ),
        ),
    )
]
HURT = st.lists(st.tuples(st.integers(0, 2**14), st.integers(1, 255)), min_size=1, max_size=4)


def hurt(data: bytes, places: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for place, flip in places:
        changed[place % len(data)] ^= flip
    return bytes(changed)


@settings(max_examples=200)
@given(places=HURT, cut=st.integers(0, 2**14))
def test_no_change_of_any_byte_of_a_report_is_added(places, cut):
    """Whatever a faulty line or a liar makes of it: refused, with a code of the protocol and no other exception."""
    data = hurt(REPORT, places)[: len(REPORT) - cut % 7]
    if data == REPORT:
        return
    state = Collecting.open(ROUND.aggregation, [1, 2, 3])
    with pytest.raises(Refusal) as caught:
        state.receive(1, unpack(MaskedReport, data, LIMIT))
    assert caught.value.code in (Code.MESSAGE_INVALID, Code.MESSAGE_VERSION, Code.E_SET, Code.E_ROUND, Code.E_SIG)
    assert not state.total.total(0).any()


@settings(max_examples=200)
@given(which=st.integers(0, 1), places=HURT)
def test_no_change_of_any_byte_of_an_order_is_obeyed(which, places):
    data = hurt(ORDERS[which], places)
    if data == ORDERS[which]:
        return
    with pytest.raises(Refusal) as caught:
        open_order(data, SAMPLE.manifest.coordinator)
    assert caught.value.code in (
        Code.MESSAGE_INVALID,
        Code.MESSAGE_VERSION,
        Code.MESSAGE_TOO_LARGE,
        Code.E_SIG,
        Code.SENDER_UNKNOWN,
    )


@settings(max_examples=100)
@given(places=HURT)
def test_no_change_of_any_byte_of_a_reply_is_read(places):
    reply = Reported(order=order_digest(b"order"), report=SAMPLE.reports[1], epsilon=0.5, head=bytes(32))
    sealed = seal(1, reply, signer(1))
    data = hurt(sealed, places)
    if data == sealed:
        return
    with pytest.raises(Refusal):
        open_reply(data, 1, SAMPLE.manifest.site(1).identity, order_digest(b"order"))


def test_what_was_not_changed_is_read():
    """The other half of the three tests above."""
    assert isinstance(open_order(ORDERS[0], SAMPLE.manifest.coordinator)[0], AnyOrder)
    state = Collecting.open(ROUND.aggregation, [1, 2, 3]).receive(1, unpack(MaskedReport, REPORT, LIMIT))
    assert member_of(SAMPLE.reports[1], None) == state.reports[1].member
