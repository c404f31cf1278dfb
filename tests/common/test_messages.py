"""Messages: one spelling for each, strict reading, and no bytes that break the reader."""

from __future__ import annotations

import struct
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.frames import pack
from common.identity import Signer
from common.messages import (
    COORDINATOR,
    Accepted,
    AnyOrder,
    AnyReply,
    DealOrder,
    Dealt,
    Enrolled,
    EnrolOrder,
    Envelope,
    Head,
    KeepOrder,
    Kept,
    LedgerOrder,
    LedgerReply,
    Members,
    OfferOrder,
    RecoverOrder,
    Refused,
    Released,
    Reported,
    Unmasked,
    UnmaskOrder,
    WorkOrder,
    open_order,
    open_reply,
    order_digest,
    seal,
    sealed_digest,
)
from common.secagg.wire import (
    BoxKey,
    MaskedReport,
    MaskTotal,
    Member,
    Parcel,
    RoundKeys,
    SessionRecord,
    ShareRelease,
)
from tests.common.pair_messages import PAIR_ORDERS, PAIR_REPLIES

COORDINATOR_KEY, SITE, OTHER = (Signer.from_seed(bytes([n]) * 32) for n in (1, 2, 3))
HASH, KEY = bytes(32), bytes(range(32))
SESSION = SessionRecord(sid=HASH, manifest=HASH, job=HASH, unmaskers=(1, 2), first=0, count=4, suite=1)
KEYS = RoundKeys(unmasker=1, number=0, exchange=KEY, kem=None, signature=bytes(64))
BASE = {"run": bytes(16), "job": b"{}"}
MEMBER = Member(site=1, exchange=KEY, body_digest=HASH, ciphertext=None, ciphertext_digests=(), signature=bytes(64))
SET = Members(number=3, binding=HASH, members=(MEMBER,))
BOX = BoxKey(holder=1, exchange=KEY, kem=None, signature=bytes(64))
PARCEL = Parcel(
    dealer=1, holder=2, exchange=KEY, ciphertext=None, body=b"\0" * 8, commitments=(HASH,), signature=bytes(64)
)
RELEASE = ShareRelease(holder=1, number=3, set_digest=HASH, lost=(2,), shares=(bytes(33),), signature=bytes(64))
ORDERS: dict[str, AnyOrder] = {
    "offer": OfferOrder(**BASE),
    "enrol": EnrolOrder(**BASE, session=SESSION),
    "work": WorkOrder(
        **BASE,
        task="train",
        round=1,
        attempt=0,
        number=3,
        session=SESSION,
        keys=(KEYS,),
        parameters=b"\0" * 8,
        heads=(Head(site=1, head=HASH),),
    ),
    "unmask": UnmaskOrder(**BASE, task="train", session=SESSION, sets=(SET,)),
    "deal": DealOrder(**BASE, session=SESSION, boxes=(BOX,)),
    "keep": KeepOrder(**BASE, session=SESSION, parcels=(PARCEL,)),
    "recover": RecoverOrder(**BASE, task="train", number=3, session=SESSION, binding=HASH, answered=HASH, lost=(1, 2)),
    "ledger": LedgerOrder(**BASE),
    **PAIR_ORDERS,
}
TOTAL = MaskTotal(unmasker=1, number=3, body=b"\0" * 8, set_digest=HASH, signature=bytes(64))
REPORT = MaskedReport(site=1, number=3, exchange=KEY, ciphertexts=(), body=b"\0" * 8, signature=bytes(64))
REPLIES: dict[str, AnyReply] = {
    "accepted": Accepted(order=HASH, epsilon_spent=0.5, epsilon_limit=3.0, head=HASH),
    "enrolled": Enrolled(order=HASH, keys=(KEYS,)),
    "enrolled with a box": Enrolled(order=HASH, keys=(KEYS,), box=BOX),
    "dealt": Dealt(order=HASH, parcels=(PARCEL,)),
    "kept": Kept(order=HASH, bad=(2,)),
    "released": Released(order=HASH, release=RELEASE),
    "reported": Reported(order=HASH, report=REPORT, epsilon=0.25, head=HASH),
    "unmasked": Unmasked(order=HASH, totals=(TOTAL,)),
    "ledger": LedgerReply(order=HASH, entries=b"{}\n", head=HASH, data=HASH),
    "refused": Refused(order=HASH, code="POLICY_TASK", reference="00ff"),
    **PAIR_REPLIES,
}
PARSER = {Code.MESSAGE_INVALID, Code.MESSAGE_TOO_LARGE, Code.MESSAGE_VERSION, Code.SENDER_UNKNOWN, Code.E_SIG}


def code_of(data: bytes, public: bytes = COORDINATOR_KEY.public) -> Code:
    """The code with which `data` is refused as an order; any other exception fails the test."""
    with pytest.raises(Refusal) as refused:
        open_order(data, public)
    return refused.value.code


def signed(body: bytes, sender: int = COORDINATOR) -> bytes:
    """Any bytes, sealed by the coordinator's own key: what a faulty coordinator could send."""
    signature = COORDINATOR_KEY.sign(b"hushfed/envelope/v1\0", struct.pack("<Q", sender), body)
    return pack(Envelope(sender=sender, body=body, signature=signature))


def table(order: AnyOrder) -> dict[str, object]:
    return msgspec.msgpack.decode(pack(order)[3:])


def spelled(values: object) -> bytes:
    return b"HF\x01" + msgspec.msgpack.Encoder(order="deterministic").encode(values)


@pytest.mark.parametrize("kind", ORDERS)
def test_an_order_is_read_as_it_was_written_and_has_one_spelling(kind: str) -> None:
    data = seal(COORDINATOR, ORDERS[kind], COORDINATOR_KEY)
    order, digest = open_order(data, COORDINATOR_KEY.public)
    assert order == ORDERS[kind]
    assert type(order) is type(ORDERS[kind])
    assert digest == sealed_digest(data) == order_digest(pack(order))
    assert seal(COORDINATOR, order, COORDINATOR_KEY) == data


@pytest.mark.parametrize("kind", REPLIES)
def test_a_reply_is_read_as_it_was_written_and_has_one_spelling(kind: str) -> None:
    data = seal(7, REPLIES[kind], SITE)
    reply = open_reply(data, 7, SITE.public, HASH)
    assert reply == REPLIES[kind]
    assert seal(7, reply, SITE) == data


def test_an_enrolment_without_shares_has_no_second_spelling() -> None:
    """Must: be the bytes that they were before there were shares. Must not: be read with an empty box in it."""
    reply = REPLIES["enrolled"]
    assert b"box" not in pack(reply)
    body = spelled({**msgspec.msgpack.decode(pack(reply)[3:]), "box": None})
    signature = SITE.sign(b"hushfed/envelope/v1\0", struct.pack("<Q", 7), body)
    with pytest.raises(Refusal) as refused:
        open_reply(pack(Envelope(sender=7, body=body, signature=signature)), 7, SITE.public, HASH)
    assert refused.value.code is Code.MESSAGE_INVALID


@pytest.mark.parametrize("kind", [*ORDERS, *REPLIES])
def test_a_message_prints_as_its_kind_only(kind: str) -> None:
    for value in (ORDERS.get(kind), REPLIES.get(kind)):
        assert value is None or repr(value) == type(value).__name__


def test_an_order_by_another_key_or_sender_is_refused() -> None:
    order = ORDERS["work"]
    assert code_of(seal(COORDINATOR, order, OTHER)) is Code.E_SIG
    assert code_of(seal(7, order, COORDINATOR_KEY)) is Code.SENDER_UNKNOWN
    assert code_of(seal(COORDINATOR, REPLIES["accepted"], COORDINATOR_KEY)) is Code.MESSAGE_INVALID


@pytest.mark.parametrize(
    ("code", "data", "order"),
    [
        (Code.SENDER_UNKNOWN, seal(8, REPLIES["accepted"], SITE), HASH),
        (Code.E_SIG, seal(7, REPLIES["accepted"], OTHER), HASH),
        (Code.MESSAGE_INVALID, seal(7, REPLIES["accepted"], SITE), bytes([1]) * 32),
        (Code.MESSAGE_INVALID, seal(7, ORDERS["offer"], SITE), HASH),
    ],
    ids=["of another site", "by another key", "to another order", "that is an order"],
)
def test_a_reply_is_refused(code: Code, data: bytes, order: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        open_reply(data, 7, SITE.public, order)
    assert refused.value.code is code


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert code_of(data) in PARSER
    assert code_of(b"HF\x01" + data) in PARSER
    assert code_of(signed(data)) in PARSER
    assert code_of(signed(b"HF\x01" + data)) in PARSER


@given(st.sampled_from(sorted(ORDERS)), st.integers(0, 10**6), st.integers(0, 7))
def test_an_order_with_one_bit_flipped_is_refused(kind: str, place: int, bit: int) -> None:
    data = bytearray(seal(COORDINATOR, ORDERS[kind], COORDINATOR_KEY))
    data[place % len(data)] ^= 1 << bit
    assert code_of(bytes(data)) in PARSER


@given(st.sampled_from(sorted(ORDERS)), st.integers(0, 10**6), st.integers(0, 7))
def test_a_body_with_one_bit_flipped_is_read_as_what_it_says_or_refused(kind: str, place: int, bit: int) -> None:
    """Must: bytes that are read are the one spelling of what was read. Must not: break the reader."""
    body = bytearray(pack(ORDERS[kind]))
    body[place % len(body)] ^= 1 << bit
    try:
        order, _ = open_order(signed(bytes(body)), COORDINATOR_KEY.public)
    except Refusal as refused:
        code = refused.code
    else:
        assert pack(order) == bytes(body)
        return
    assert code in PARSER


@given(st.sampled_from(sorted(ORDERS)), st.integers(0, 10**6), st.binary(min_size=1, max_size=9))
def test_truncated_and_trailing_bytes_are_refused(kind: str, place: int, more: bytes) -> None:
    data, body = seal(COORDINATOR, ORDERS[kind], COORDINATOR_KEY), pack(ORDERS[kind])
    assert code_of(data[: place % len(data)]) in PARSER
    assert code_of(data + more) is Code.MESSAGE_INVALID
    assert code_of(signed(body[: place % len(body)])) in PARSER
    assert code_of(signed(body + more)) is Code.MESSAGE_INVALID


@pytest.mark.parametrize("kind", ORDERS)
def test_an_unknown_missing_or_wrong_field_is_refused(kind: str) -> None:
    fields = table(ORDERS[kind])
    assert code_of(signed(spelled({**fields, "extra": 1}))) is Code.MESSAGE_INVALID
    assert code_of(signed(spelled({**fields, "kind": "offr"}))) is Code.MESSAGE_INVALID
    for name in fields:
        for wrong in (None, -1, 2**64 - 1, "1", [], {}, 1.5, True, b"", b"x" * 31):
            if wrong == fields[name] or (name == "job" and isinstance(wrong, bytes)):
                continue
            if name == "parameters" and isinstance(wrong, bytes):
                continue
            if name in ("keys", "heads", "members") and wrong == []:
                continue
            assert code_of(signed(spelled({**fields, name: wrong}))) is Code.MESSAGE_INVALID, (name, wrong)
        assert code_of(signed(spelled({k: v for k, v in fields.items() if k != name}))) is Code.MESSAGE_INVALID


def test_a_second_spelling_of_the_same_order_is_refused() -> None:
    fields = table(ORDERS["work"])
    turned = b"HF\x01" + msgspec.msgpack.encode(dict(reversed(list(fields.items()))))
    assert code_of(signed(turned)) is Code.MESSAGE_INVALID
    wide = pack(ORDERS["work"]).replace(b"\xa5round\x01", b"\xa5round\xd1\x00\x01")  # 1 as sixteen bits
    assert len(wide) == len(pack(ORDERS["work"])) + 2
    assert code_of(signed(wide)) is Code.MESSAGE_INVALID
    float_for_int = pack(ORDERS["work"]).replace(b"\xa5round\x01", b"\xa5round\xcb" + struct.pack(">d", 1.0))
    assert code_of(signed(float_for_int)) is Code.MESSAGE_INVALID


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused_as_such(version: int) -> None:
    body = pack(ORDERS["offer"])
    assert code_of(signed(body[:2] + bytes([version]) + body[3:])) is Code.MESSAGE_VERSION
    data = seal(COORDINATOR, ORDERS["offer"], COORDINATOR_KEY)
    assert code_of(data[:2] + bytes([version]) + data[3:]) is Code.MESSAGE_VERSION


@pytest.mark.parametrize("deep", [b"\x91", b"\x81\xa4kind", b"\x81"])
def test_deep_nesting_and_huge_lengths_are_refused_at_once(deep: bytes) -> None:
    begun = time.monotonic()
    assert code_of(b"HF\x01" + deep * 200_000) is Code.MESSAGE_INVALID
    assert code_of(signed(b"HF\x01" + deep * 200_000)) is Code.MESSAGE_INVALID
    for head in (b"\xc6", b"\xdb", b"\xdd", b"\xdf"):  # binary, text, list, map of 2^32 - 1
        assert code_of(b"HF\x01" + head + b"\xff" * 4) is Code.MESSAGE_INVALID
        body = pack(ORDERS["unmask"])
        place = body.index(b"members") + 7
        assert code_of(signed(body[:place] + head + b"\xff" * 4 + body[place + 1 :])) is Code.MESSAGE_INVALID
    assert time.monotonic() - begun < 5


def test_more_bytes_than_the_limit_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.messages.LIMIT", 100)
    assert code_of(bytes(101)) is Code.MESSAGE_TOO_LARGE
    assert code_of(bytes(100)) is Code.MESSAGE_INVALID


@pytest.mark.parametrize("value", [-1.0, float("-inf"), float("nan")])
def test_a_site_cannot_claim_an_epsilon_that_is_no_cost(value: float) -> None:
    reply = Reported(order=HASH, report=REPORT, epsilon=value, head=HASH)
    with pytest.raises(Refusal) as refused:
        open_reply(seal(7, reply, SITE), 7, SITE.public, HASH)
    assert refused.value.code is Code.MESSAGE_INVALID


@pytest.mark.parametrize("text", ["record 17 is odd", "a" * 33, "lower", ""])
def test_a_refusal_carries_a_code_and_no_text(text: str) -> None:
    data = seal(7, Refused(order=HASH, code=text, reference=""), SITE)
    with pytest.raises(Refusal) as refused:
        open_reply(data, 7, SITE.public, HASH)
    assert refused.value.code is Code.MESSAGE_INVALID
