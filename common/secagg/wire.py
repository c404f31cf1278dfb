"""What secure aggregation says on the wire: session record, keys, shares, masked reports, sets, answers."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from common.frames import Frame

SiteId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Key32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
KemKey = Annotated[bytes, msgspec.Meta(min_length=1184, max_length=1184)]
KeyShare = Annotated[bytes, msgspec.Meta(min_length=33, max_length=33)]
Ciphertext = Annotated[bytes, msgspec.Meta(min_length=1088, max_length=1088)]


class SessionRecord(Frame, frozen=True, kw_only=True):
    """What one session of aggregations is about; its digest h_R enters every mask.

    unmaskers  ids, in the order in which keys and ciphertexts are listed
    first, count  aggregation numbers [first, first + count) that the session covers
    job  digest of the job: codec, dimension, and privacy follow from it
    """

    sid: Hash
    manifest: Hash
    job: Hash
    unmaskers: Annotated[tuple[SiteId, ...], msgspec.Meta(min_length=1, max_length=64)]
    first: Count
    count: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    suite: Literal[1, 2]


class RoundKeys(Frame, frozen=True, kw_only=True):
    """Public keys of one unmasking site for one aggregation number, signed by its identity."""

    unmasker: SiteId
    number: Count
    exchange: Key32  # X25519
    kem: KemKey | None  # ML-KEM-768; None in suite 1
    signature: Signature


class MaskedReport(Frame, frozen=True, kw_only=True):
    """One site's masked vector and what the unmasking sites need to take its masks away."""

    site: SiteId
    number: Count
    exchange: Key32  # epk, fresh for this report
    ciphertexts: Annotated[tuple[Ciphertext, ...], msgspec.Meta(max_length=64)]  # one an unmasker; empty in suite 1
    body: bytes  # y, packed lanes
    signature: Signature


class Member(Frame, frozen=True, kw_only=True):
    """One report as an unmasking site sees it: everything signed, but not the masked vector."""

    site: SiteId
    exchange: Key32
    body_digest: Hash
    ciphertext: Ciphertext | None  # the one meant for this unmasking site
    ciphertext_digests: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=64)]
    signature: Signature


class MaskTotal(Frame, frozen=True, kw_only=True):
    """The sum of the masks that one unmasking site shares with the members of one set."""

    unmasker: SiteId
    number: Count
    body: bytes  # M_c, packed lanes
    set_digest: Hash
    signature: Signature


class BoxKey(Frame, frozen=True, kw_only=True):
    """Public key of one unmasking site for one session, signed: with it the others seal their shares for this site."""

    holder: SiteId
    exchange: Key32
    kem: KemKey | None  # None in suite 1
    signature: Signature


class Parcel(Frame, frozen=True, kw_only=True):
    """One share of each of a dealer's round seeds, sealed for one holder, and the commitments to them."""

    dealer: SiteId
    holder: SiteId
    exchange: Key32  # fresh for this parcel
    ciphertext: Ciphertext | None
    body: Annotated[bytes, msgspec.Meta(max_length=33 * 1024 + 16)]  # shares by number, AES-256-GCM
    commitments: Annotated[tuple[Hash, ...], msgspec.Meta(min_length=1, max_length=1024)]
    signature: Signature


class ShareRelease(Frame, frozen=True, kw_only=True):
    """Shares with which one unmasking site helps to recover the lost ones of one number."""

    holder: SiteId
    number: Count
    set_digest: Hash  # the set that this site answered for
    lost: Annotated[tuple[SiteId, ...], msgspec.Meta(min_length=1, max_length=64)]
    shares: Annotated[tuple[KeyShare, ...], msgspec.Meta(min_length=1, max_length=64)]  # in the order of `lost`
    signature: Signature
