"""Secrets of a site in one attempt, the mask key of a pair, and parcels of shares sealed from one site to another."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec.structs import replace as altered

from common.errors import Code, Refusal
from common.frames import pack
from common.secagg.keys import RoundSeed, agree, decapsulate, encapsulate, public
from common.secagg.pairwise.wire import Lock, PairKeys, PairParcel
from common.secagg.shamir import SHARE_BYTES, commitment

_MASK = b"pairwise-v1/mask\0"
_SELF = b"pairwise-v1/self\0"
_PAD = b"pairwise-v1/pad\0"
_LOCK = b"pairwise-v1/lock\0"
_BOX = b"pairwise-v1/box\0"
_PARCEL = b"pairwise-v1/parcel\0"
_NONCE = bytes(12)  # a parcel's key seals nothing else
_UNSIGNED = bytes(64)


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What a site draws for one attempt. Only `pair` and `own` are dealt in shares; nothing of it is ever printed.

    pair  seed of the keys behind its pair masks; revealed if the site is lost
    box   seed of the keys that shares for it are sealed to; never revealed
    own   32 bytes behind its own mask; revealed if it survives
    """

    pair: RoundSeed = field(repr=False)
    box: RoundSeed = field(repr=False)
    own: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Secrets:
        """New secrets from system entropy."""
        return cls(pair=RoundSeed.generate(), box=RoundSeed.generate(), own=os.urandom(32))

    def keys(self, context: bytes, site: int, number: int, seed: bytes, suite: int) -> PairKeys:
        """The public keys, not yet signed. seed: public, names the peers that the site chose."""
        hybrid = suite == 2
        return PairKeys(
            site=site,
            number=number,
            exchange=public(self.pair.exchange),
            kem=public(self.pair.kem) if hybrid else None,
            box_exchange=public(self.box.exchange),
            box_kem=public(self.box.kem) if hybrid else None,
            seed=seed,
            self_digest=self_digest(context, site, self.own),
            signature=_UNSIGNED,
        )


@dataclass(frozen=True, kw_only=True)
class Link:
    """A pair of sites from the one that opened it to the other, as either of them or a recovered secret sees it.

    context  ctx of the attempt
    lock     what the first sent to the second; None in suite 1
    """

    context: bytes
    first: PairKeys
    second: PairKeys
    lock: Lock | None

    def key_from_first(self, seed: RoundSeed) -> bytes:
        """The mask key (32 bytes), with the pair seed of the first."""
        pad = b"" if self.lock is None else self._pad(seed)
        return self._key(agree(seed.exchange, self.second.exchange) + pad)

    def key_from_second(self, seed: RoundSeed) -> bytes:
        """The mask key, with the pair seed of the second. Errors: Refusal E_KEY."""
        pad = b""
        if self.lock is not None:
            pad = _xor(self.lock.pad, self._cover(decapsulate(seed.kem, self.lock.ciphertext)))
        return self._key(agree(seed.exchange, self.first.exchange) + pad)

    def locked(self, seed: RoundSeed) -> Lock | None:
        """The lock that the first sends, with its pair seed; None in suite 1.

        What it hides follows from the seed, so that whoever rebuilds the seed of either site finds the mask key.
        """
        if self.second.kem is None:
            return None
        secret, ciphertext = encapsulate(self.second.kem)
        return Lock(ciphertext=ciphertext, pad=_xor(self._pad(seed), self._cover(secret)))

    def _pad(self, seed: RoundSeed) -> bytes:
        return _hkdf(seed.reveal(), self.context, _PAD + self._ends())

    def _cover(self, secret: bytes) -> bytes:
        return _hkdf(secret, self.context, _LOCK + self._ends())

    def _key(self, shared: bytes) -> bytes:
        lock = b"" if self.lock is None else hashlib.sha256(self.lock.ciphertext + self.lock.pad).digest()
        return _hkdf(shared, self.context, _MASK + self._ends() + lock)

    def _ends(self) -> bytes:
        """Ids and public keys of both, so that nobody can pass another's key off as its own."""
        return _ids(self.first.site, self.second.site) + self.first.exchange + self.second.exchange


@dataclass(frozen=True, kw_only=True)
class Held:
    """One dealer's shares at one holder. Never both are revealed."""

    own: bytes = field(repr=False)  # of the seed of its self mask
    pair: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Way:
    """From a dealer to a holder of its shares, under the keys that whoever uses it was shown of both."""

    context: bytes
    dealer: PairKeys
    holder: PairKeys

    def commitment(self, share: bytes) -> bytes:
        """The commitment to a share that goes this way."""
        return share_commitment(self.context, self.dealer.site, self.holder.site, share)

    def box_key(self, ciphertext: bytes | None, shared: bytes) -> bytes:
        """What shares are sealed with, from the secrets that both ends agree on."""
        tail = b"" if ciphertext is None else hashlib.sha256(ciphertext).digest()
        ends = _ids(self.dealer.site, self.holder.site) + self.dealer.box_exchange + self.holder.box_exchange
        return _hkdf(shared, self.context, _BOX + ends + tail)

    def bound(self, lock: Lock | None, commitments: tuple[bytes, bytes]) -> bytes:
        """What is authenticated with the shares: ctx, all that both advertised, the lock, the commitments.

        So nobody on the way can give a holder another lock, whose secret he knows, or other keys than the dealer saw.
        """
        advertised = b"".join(_digest_of(each) for each in (self.dealer, self.holder))
        locked = bytes(32) if lock is None else hashlib.sha256(lock.ciphertext + lock.pad).digest()
        return _PARCEL + self.context + advertised + locked + b"".join(commitments)


def sealed(way: Way, box: RoundSeed, held: Held, lock: Lock | None) -> PairParcel:
    """The dealer's shares for one holder. box: the dealer's. Errors: Refusal E_KEY."""
    dealer, holder = way.dealer, way.holder
    shared, ciphertext = agree(box.exchange, holder.box_exchange), None
    if holder.box_kem is not None:
        secret, ciphertext = encapsulate(holder.box_kem)
        shared += secret
    own, pair = way.commitment(held.own), way.commitment(held.pair)
    return PairParcel(
        dealer=dealer.site,
        holder=holder.site,
        ciphertext=ciphertext,
        lock=lock,
        self_commitment=own,
        pair_commitment=pair,
        body=AESGCM(way.box_key(ciphertext, shared)).encrypt(
            _NONCE, held.own + held.pair, way.bound(lock, (own, pair))
        ),
    )


def opened(way: Way, box: RoundSeed, parcel: PairParcel) -> Held:
    """The shares in a parcel. box: the holder's.

    Errors: Refusal E_KEY (not what this dealer sealed for this holder), E_SHARE (not what it committed to).
    """
    shared = agree(box.exchange, way.dealer.box_exchange)
    if parcel.ciphertext is not None:
        shared += decapsulate(box.kem, parcel.ciphertext)
    commitments = (parcel.self_commitment, parcel.pair_commitment)
    key, bound = way.box_key(parcel.ciphertext, shared), way.bound(parcel.lock, commitments)
    try:
        plain = AESGCM(key).decrypt(_NONCE, parcel.body, bound)
    except InvalidTag:
        raise _refused(Code.E_KEY, "it is not what its dealer sealed for this site") from None
    held = Held(own=plain[:SHARE_BYTES], pair=plain[SHARE_BYTES:])
    if (way.commitment(held.own), way.commitment(held.pair)) != commitments:
        raise _refused(Code.E_SHARE, "a share is not the one that its dealer committed to")
    return held


def share_commitment(context: bytes, dealer: int, holder: int, share: bytes) -> bytes:
    """The commitment to a share; with it a false one is found. The two kinds differ in their secrets alone."""
    return commitment(context + _ids(dealer, holder), share)


def self_digest(context: bytes, site: int, own: bytes) -> bytes:
    """The commitment to the seed of a self mask: whoever rebuilds it knows that it is the right one."""
    return hashlib.sha256(_SELF + context + _ids(site, site) + own).digest()


def self_key(context: bytes, site: int, own: bytes) -> bytes:
    """The key of a site's self mask (32 bytes)."""
    return _hkdf(own, context, _SELF + _ids(site, site))


def _digest_of(keys: PairKeys) -> bytes:
    """Of all that a site advertised but the signature over it."""
    return hashlib.sha256(pack(altered(keys, signature=_UNSIGNED))).digest()


def _ids(first: int, second: int) -> bytes:
    return struct.pack("<QQ", first, second)


def _xor(first: bytes, second: bytes) -> bytes:
    return (int.from_bytes(first, "big") ^ int.from_bytes(second, "big")).to_bytes(32, "big")


def _hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(secret)


def _refused(code: Code, why: str) -> Refusal:
    return Refusal(code, "Parcel refused", why, "Leave its dealer out")
