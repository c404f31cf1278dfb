"""What secure aggregation by pairwise masks says on the wire: keys, sealed shares, signatures over a set, shares."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from common.frames import Frame
from common.secagg.wire import Ciphertext, Count, Hash, KemKey, Key32, Signature, SiteId

SITES_MAX = 2**13  # as many as the rules of a manifest allow

Pad = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
PeerShare = Annotated[bytes, msgspec.Meta(min_length=33, max_length=33)]
SealedShares = Annotated[bytes, msgspec.Meta(min_length=82, max_length=82)]
Cohort = Annotated[tuple[SiteId, ...], msgspec.Meta(max_length=SITES_MAX)]


class PairSession(Frame, frozen=True, kw_only=True):
    """What attempts under one name have in common; its digest h_R enters every mask."""

    sid: Hash
    manifest: Hash
    job: Hash
    suite: Literal[1, 2]


class PairKeys(Frame, frozen=True, kw_only=True):
    """The public keys of one site for one attempt, signed by its identity. Fresh for each attempt."""

    site: SiteId
    number: Count
    exchange: Key32  # X25519: pair masks
    kem: KemKey | None  # ML-KEM-768: pair masks; None in suite 1
    box_exchange: Key32  # X25519: shares for this site are sealed to it
    box_kem: KemKey | None
    seed: Hash  # public: it names the peers that this site chose
    self_digest: Hash  # commitment to the seed of its self mask
    signature: Signature


class Lock(Frame, frozen=True, kw_only=True):
    """What the site that opened a pair adds to its mask key in suite 2, sealed with the other's ML-KEM key."""

    ciphertext: Ciphertext
    pad: Pad


class PairParcel(Frame, frozen=True, kw_only=True):
    """A dealer's shares of its two secrets for one holder, sealed, with commitments to both."""

    dealer: SiteId
    holder: SiteId
    ciphertext: Ciphertext | None  # to the holder's box key; None in suite 1
    lock: Lock | None  # only from the site that opened the pair
    self_commitment: Hash
    pair_commitment: Hash
    body: SealedShares  # share of the self-mask seed, share of the pair seed; AES-256-GCM


class Endorsement(Frame, frozen=True, kw_only=True):
    """One site's signature over the set of survivors."""

    site: SiteId
    signature: Signature


class RevealedShare(Frame, frozen=True, kw_only=True):
    """One share of one dealer's secret: of its self mask if it survived, of its pair seed if it did not."""

    dealer: SiteId
    share: PeerShare
