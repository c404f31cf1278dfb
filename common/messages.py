"""Every order and reply of a round: typed, versioned, signed, of bounded size."""

from __future__ import annotations

import hashlib
import struct
from typing import Annotated

import msgspec

from common.errors import Code, Refusal
from common.frames import Frame, pack, unpack
from common.identity import Signer, verify
from common.orders import Clip, Epsilon, Head, Order, Reply, Round, Task
from common.secagg.pairwise.orders import (
    Advertised,
    AdvertiseOrder,
    Agreed,
    AgreeOrder,
    Masked,
    MaskOrder,
    PairDealOrder,
    PairDealt,
    Revealed,
    RevealOrder,
)
from common.secagg.wire import (
    BoxKey,
    Count,
    Hash,
    MaskedReport,
    MaskTotal,
    Member,
    Parcel,
    RoundKeys,
    SessionRecord,
    ShareRelease,
    Signature,
    SiteId,
)

COORDINATOR = 0
LIMIT = 512 * 2**20  # bytes of one message; parameters of 10^8 scalars pass
_CONTEXT = b"hushfed/envelope/v1\0"


class Envelope(Frame, frozen=True, kw_only=True):
    """A message and who signed it. `sender` is a site id of the manifest, or 0 for the coordinator."""

    sender: Count
    body: bytes
    signature: Signature


class OfferOrder(Order, frozen=True, kw_only=True, tag="offer"):
    """Would this site take part in the job? Nothing is computed or charged."""


class EnrolOrder(Order, frozen=True, kw_only=True, tag="enrol"):
    """Make round keys for a session of aggregations."""

    session: SessionRecord


class DealOrder(Order, frozen=True, kw_only=True, tag="deal"):
    """Share your round seeds with the other unmasking sites of the session; in its order, the keys to seal with."""

    session: SessionRecord
    boxes: Annotated[tuple[BoxKey, ...], msgspec.Meta(max_length=64)]


class KeepOrder(Order, frozen=True, kw_only=True, tag="keep"):
    """Keep the shares in these parcels, one of each other unmasking site, in the order of the session."""

    session: SessionRecord
    parcels: Annotated[tuple[Parcel, ...], msgspec.Meta(max_length=64)]


class WorkOrder(Order, frozen=True, kw_only=True, tag="work"):
    """Train from, or evaluate, these parameters and answer with a masked report. The same bytes for all sites.

    number      aggregation number, used once in the life of a federation's session
    parameters  float32 little-endian, d scalars
    clip        bound of a site's update in this round, where it adapts; 0 elsewhere
    heads       of the sites' ledgers; a site whose ledger lacks its head was rolled back
    """

    task: Task
    round: Round
    attempt: Round
    number: Count
    session: SessionRecord
    keys: Annotated[tuple[RoundKeys, ...], msgspec.Meta(max_length=64)]
    parameters: bytes
    heads: Annotated[tuple[Head, ...], msgspec.Meta(max_length=2**20)]
    clip: Clip = 0.0


class Members(Frame, frozen=True, kw_only=True):
    """A fixed set of reports whose sum is to be opened."""

    number: Count
    binding: Hash  # h_model: what the members' signatures bind besides the session
    members: Annotated[tuple[Member, ...], msgspec.Meta(max_length=2**20)]


class UnmaskOrder(Order, frozen=True, kw_only=True, tag="unmask"):
    """Answer with the total of your masks over exactly these reports; of each group of one attempt, if it has more."""

    task: Task
    session: SessionRecord
    sets: Annotated[tuple[Members, ...], msgspec.Meta(min_length=1, max_length=64)]


class RecoverOrder(Order, frozen=True, kw_only=True, tag="recover"):
    """Release your shares of the seeds of unmasking sites that were lost after the reports were in."""

    task: Task
    number: Count
    session: SessionRecord
    binding: Hash  # as in the order to unmask
    answered: Hash  # h_S of the set that this site answered for
    lost: Annotated[tuple[SiteId, ...], msgspec.Meta(min_length=1, max_length=64)]


class LedgerOrder(Order, frozen=True, kw_only=True, tag="ledger"):
    """The run is over: send the public entries of the ledger that this job's data set is charged to.

    The site erases what is left of the job's mask keys and shares.
    """


class Accepted(Reply, frozen=True, kw_only=True, tag="accepted"):
    """The site's policy allows the job. epsilon: spent so far, and the most its keeper allows."""

    epsilon_spent: Epsilon
    epsilon_limit: Epsilon
    head: Hash


class Enrolled(Reply, frozen=True, kw_only=True, tag="enrolled", omit_defaults=True):
    """Public round keys of an unmasking site, one for each number of the session; under rules with shares, its box."""

    keys: Annotated[tuple[RoundKeys, ...], msgspec.Meta(max_length=1024)]
    box: BoxKey | None = None


class Dealt(Reply, frozen=True, kw_only=True, tag="dealt"):
    """Shares of an unmasking site's seeds, one parcel for each of the others, in the order of the session."""

    parcels: Annotated[tuple[Parcel, ...], msgspec.Meta(max_length=64)]


class Kept(Reply, frozen=True, kw_only=True, tag="kept"):
    """Shares are kept; or, where a parcel could not be opened, none are, and `bad` names the dealers."""

    bad: Annotated[tuple[SiteId, ...], msgspec.Meta(max_length=64)]


class Reported(Reply, frozen=True, kw_only=True, tag="reported"):
    """A masked report, and what it cost: no metric, no count of records, no text."""

    report: MaskedReport
    epsilon: Epsilon
    head: Hash


class Unmasked(Reply, frozen=True, kw_only=True, tag="unmasked"):
    """The totals of this unmasking site's masks, one for each set of the order."""

    totals: Annotated[tuple[MaskTotal, ...], msgspec.Meta(min_length=1, max_length=64)]


class Released(Reply, frozen=True, kw_only=True, tag="released"):
    """This unmasking site's shares of the seeds of lost sites, for one number."""

    release: ShareRelease


class LedgerReply(Reply, frozen=True, kw_only=True, tag="ledger"):
    """The ledger's public entries, from the first on, and its head."""

    entries: bytes  # JSON lines, one public entry each
    head: Hash
    data: Hash | None  # keyed fingerprint of the records in use; None if none are open


class Refused(Reply, frozen=True, kw_only=True, tag="refused"):
    """The order was not carried out. `reference` finds the reason in the site's own log; no text leaves."""

    code: Annotated[str, msgspec.Meta(max_length=32, pattern="^[A-Z_]+$")]
    reference: Annotated[str, msgspec.Meta(max_length=16, pattern="^[0-9a-f]*$")]


StageOrder = PairDealOrder | MaskOrder | AgreeOrder | RevealOrder  # of an attempt by pairwise masks, after the first
AnyOrder = (
    OfferOrder
    | EnrolOrder
    | DealOrder
    | KeepOrder
    | WorkOrder
    | UnmaskOrder
    | RecoverOrder
    | LedgerOrder
    | AdvertiseOrder
    | StageOrder
)
AnyReply = (
    Accepted
    | Enrolled
    | Dealt
    | Kept
    | Reported
    | Unmasked
    | Released
    | LedgerReply
    | Refused
    | Advertised
    | PairDealt
    | Masked
    | Agreed
    | Revealed
)


def seal(sender: int, message: AnyOrder | AnyReply, signer: Signer) -> bytes:
    """The signed bytes of `message`."""
    body = pack(message)
    signature = signer.sign(_CONTEXT, struct.pack("<Q", sender), body)
    return pack(Envelope(sender=sender, body=body, signature=signature))


def open_order(data: bytes, coordinator: bytes) -> tuple[AnyOrder, bytes]:
    """The order in `data` and its digest, if the key `coordinator` signed it.

    Errors: Refusal SENDER_UNKNOWN, E_SIG, MESSAGE_INVALID, MESSAGE_VERSION, MESSAGE_TOO_LARGE.
    """
    envelope = unpack(Envelope, data, LIMIT)
    if envelope.sender != COORDINATOR:
        raise Refusal(
            Code.SENDER_UNKNOWN, "Order not read", "its sender is not the coordinator", "Check the manifest in force"
        )
    _verify(envelope, coordinator)
    return unpack(AnyOrder, envelope.body, LIMIT), order_digest(envelope.body)  # type: ignore[arg-type]  # a union is no type


def open_reply(data: bytes, site: int, public: bytes, order: bytes) -> AnyReply:
    """The reply in `data`, if site `site` signed it with `public` as an answer to the order of digest `order`.

    Errors: Refusal SENDER_UNKNOWN, E_SIG, MESSAGE_INVALID, MESSAGE_VERSION, MESSAGE_TOO_LARGE.
    """
    envelope = unpack(Envelope, data, LIMIT)
    if envelope.sender != site:
        raise Refusal(Code.SENDER_UNKNOWN, "Reply not read", "another site signed it", "Check node keys and manifest")
    _verify(envelope, public)
    reply: AnyReply = unpack(AnyReply, envelope.body, LIMIT)  # type: ignore[arg-type]  # a union is no type
    if reply.order != order:
        raise Refusal(Code.MESSAGE_INVALID, "Reply not read", "it answers another order", "Send the order again")
    return reply


def order_digest(body: bytes) -> bytes:
    """SHA-256 of an order's body: what its reply names."""
    return hashlib.sha256(body).digest()


def sealed_digest(data: bytes) -> bytes:
    """`order_digest` of the order inside sealed bytes."""
    return order_digest(unpack(Envelope, data, LIMIT).body)


def _verify(envelope: Envelope, public: bytes) -> None:
    verify(public, envelope.signature, _CONTEXT, struct.pack("<Q", envelope.sender), envelope.body)
