"""Shares of round seeds on their way: sealed by the dealer, opened by the holder, each with its commitment.

A holder that was lost is recovered from shares that the others keep (`shamir.py`). The key that a parcel is sealed
with serves one session; in suite 2 it is as strong against quantum computers as the masks are.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from common.errors import Code, Refusal
from common.identity import Signer, verify
from common.secagg.keys import Pair, RoundSeed, agree, decapsulate, encapsulate, public
from common.secagg.manifest import Manifest
from common.secagg.shamir import SHARE_BYTES, commitment
from common.secagg.statements import record_digest
from common.secagg.wire import BoxKey, Parcel, SessionRecord

_BOX = b"alm-v1/box-key\0"
_PARCEL = b"alm-v1/parcel\0"
_NONCE = bytes(12)  # a parcel's key seals nothing else
_UNSIGNED = bytes(64)


def box_key(signer: Signer, session: SessionRecord, own: int, secret: RoundSeed) -> BoxKey:
    """The public key with which others seal shares for this site, signed."""
    kem = public(secret.kem) if session.suite == 2 else None
    key = BoxKey(holder=own, exchange=public(secret.exchange), kem=kem, signature=_UNSIGNED)
    return replace(key, signature=signer.sign(*_box_statement(session, key)))


def verify_boxes(manifest: Manifest, session: SessionRecord, boxes: Sequence[BoxKey]) -> None:
    """Accept only signed keys of all unmasking sites of `session`, in its order. Errors: Refusal E_KEY, E_SIG."""
    if tuple(box.holder for box in boxes) != session.unmaskers:
        raise _key_refused("they are not one of each unmasking site, in order")
    for box in boxes:
        verify_box(manifest, session, box)


def verify_box(manifest: Manifest, session: SessionRecord, box: BoxKey) -> None:
    """Accept only a key of the session's suite that its unmasking site signed. Errors: Refusal E_KEY, E_SIG."""
    if (box.kem is not None) != (session.suite == 2) or box.holder not in session.unmaskers:
        raise _key_refused("they are not of this session")
    verify(manifest.site(box.holder).identity, box.signature, *_box_statement(session, box))


def sealed_parcel(
    signer: Signer,
    session: SessionRecord,
    dealer: int,
    box: BoxKey,
    shares: Sequence[bytes],
    *,
    one_time: X25519PrivateKey | None = None,
) -> Parcel:
    """One share of each number of `session` for the holder of `box`, sealed and signed.

    one_time  given for vectors only: elsewhere the key is fresh, and gone when the parcel is sealed
    Errors: Refusal E_KEY.
    """
    one_time, ciphertext = one_time or X25519PrivateKey.generate(), None
    shared = agree(one_time, box.exchange)
    if box.kem is not None:
        secret, ciphertext = encapsulate(box.kem)
        shared += secret
    parcel = Parcel(
        dealer=dealer,
        holder=box.holder,
        exchange=public(one_time),
        ciphertext=ciphertext,
        body=b"",
        commitments=_commitments(session, dealer, box.holder, shares),
        signature=_UNSIGNED,
    )
    key = _pair(session, parcel, box.exchange).parcel_key(shared)
    parcel = replace(parcel, body=AESGCM(key).encrypt(_NONCE, b"".join(shares), None))
    return replace(parcel, signature=signer.sign(*_parcel_statement(session, parcel)))


def verify_parcel(manifest: Manifest, session: SessionRecord, parcel: Parcel) -> None:
    """Accept only what its dealer signed for one of the others. Errors: Refusal E_SHARE (shape), E_SIG."""
    ends = {parcel.dealer, parcel.holder}
    sizes = (len(parcel.commitments), len(parcel.body), parcel.ciphertext is not None)
    if sizes != (session.count, session.count * SHARE_BYTES + 16, session.suite == 2):
        raise _parcel_refused("it does not hold one share a number")
    if len(ends) != 2 or not ends <= set(session.unmaskers):
        raise _parcel_refused("it does not go from one unmasking site of the session to another")
    verify(manifest.site(parcel.dealer).identity, parcel.signature, *_parcel_statement(session, parcel))


def opened_parcel(session: SessionRecord, secret: RoundSeed, parcel: Parcel) -> tuple[bytes, ...]:
    """The shares by number, each checked against its commitment.

    secret  behind the holder's box key
    Errors: Refusal E_SHARE, E_KEY: the dealer sealed something else than it signed.
    """
    shared = agree(secret.exchange, parcel.exchange)
    if parcel.ciphertext is not None:
        shared += decapsulate(secret.kem, parcel.ciphertext)
    key = _pair(session, parcel, public(secret.exchange)).parcel_key(shared)
    try:
        plain = AESGCM(key).decrypt(_NONCE, parcel.body, None)
    except InvalidTag:
        raise _parcel_refused("it was not sealed for this site") from None
    shares = tuple(plain[first : first + SHARE_BYTES] for first in range(0, len(plain), SHARE_BYTES))
    if _commitments(session, parcel.dealer, parcel.holder, shares) != parcel.commitments:
        raise _parcel_refused("a share is not the one that its dealer committed to")
    return shares


def share_commitment(session: SessionRecord, number: int, dealer: int, holder: int, share: bytes) -> bytes:
    """The commitment to the share that `holder` has of `dealer`'s seed for `number`."""
    return commitment(record_digest(session) + struct.pack("<QQQ", number, dealer, holder), share)


def _commitments(session: SessionRecord, dealer: int, holder: int, shares: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(
        share_commitment(session, session.first + place, dealer, holder, share) for place, share in enumerate(shares)
    )


def _pair(session: SessionRecord, parcel: Parcel, box: bytes) -> Pair:
    return Pair(
        context=record_digest(session),
        site=parcel.dealer,
        unmasker=parcel.holder,
        exchange=parcel.exchange,
        unmasker_exchange=box,
        ciphertext=parcel.ciphertext,
    )


def _box_statement(session: SessionRecord, box: BoxKey) -> tuple[bytes, ...]:
    return _BOX, record_digest(session), struct.pack("<Q", box.holder), box.exchange, box.kem or b""


def _parcel_statement(session: SessionRecord, parcel: Parcel) -> tuple[bytes, ...]:
    ends = struct.pack("<QQ", parcel.dealer, parcel.holder)
    ciphertext = hashlib.sha256(parcel.ciphertext or b"").digest()
    commitments = hashlib.sha256(b"".join(parcel.commitments)).digest()
    return _PARCEL, record_digest(session), ends, parcel.exchange, ciphertext, commitments, parcel.body


def _key_refused(why: str) -> Refusal:
    return Refusal(Code.E_KEY, "Box keys refused", why, "Collect the keys of this session")


def _parcel_refused(why: str) -> Refusal:
    return Refusal(Code.E_SHARE, "Parcel refused", why, "Open a session without its dealer")
