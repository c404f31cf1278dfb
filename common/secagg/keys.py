"""Keys of one aggregation: a seed for an unmasking site's round keys, and the mask key a pair of sites agrees on."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import Code, Refusal

_MASK = b"alm-v1/mask\0"
_BOX = b"alm-v1/box\0"


class RoundSeed:
    """ρ, the secret behind the round keys of one unmasking site for one number. Never printed, never pickled.

    Whoever holds it can take this site's masks from every report of the number: it lives in the key store alone
    and is erased once the number is answered. Another one is behind the key that shares are sealed with.
    """

    __slots__ = ("_seed", "exchange", "kem")

    def __init__(self, seed: bytes):
        self._seed = seed
        self.exchange: X25519PrivateKey = X25519PrivateKey.from_private_bytes(_hkdf(seed, None, b"x", 32))
        self.kem: MLKEM768PrivateKey = MLKEM768PrivateKey.from_seed_bytes(_hkdf(seed, None, b"k", 64))

    @classmethod
    def generate(cls) -> RoundSeed:
        """A new seed from system entropy."""
        return cls(os.urandom(32))

    def __repr__(self) -> str:
        return "RoundSeed"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")

    def reveal(self) -> bytes:
        """The 32 bytes, for the key store, and to be dealt in shares."""
        return self._seed


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What a mask key is bound to: one site, one unmasking site, one aggregation. All of it is public.

    context        ctx of the aggregation
    exchange       epk_i, the site's X25519 public key of this report
    unmasker_exchange  hpk_c, the unmasking site's X25519 public key of this number
    ciphertext     ML-KEM ciphertext from site to unmasking site; None in suite 1

    The key of a parcel of shares is bound in the same way: from dealer to holder, in the context h_R of a session.
    """

    context: bytes
    site: int
    unmasker: int
    exchange: bytes
    unmasker_exchange: bytes
    ciphertext: bytes | None

    def mask_key(self, shared: bytes) -> bytes:
        """k_ic (32 bytes) from the agreed secrets: X25519, in suite 2 followed by ML-KEM's.

        Both ids are in it, so nobody can pass another's public key off as their own; so is the ciphertext, which
        makes the hybrid as strong as the stronger half.
        """
        return self._key(_MASK, shared)

    def parcel_key(self, shared: bytes) -> bytes:
        """The key (32 bytes) of the one parcel that these public keys are for, from the agreed secrets."""
        return self._key(_BOX, shared)

    def _key(self, label: bytes, shared: bytes) -> bytes:
        ids = struct.pack("<QQ", self.site, self.unmasker)
        tail = b"" if self.ciphertext is None else hashlib.sha256(self.ciphertext).digest()
        return _hkdf(shared, self.context, label + ids + self.exchange + self.unmasker_exchange + tail, 32)


def public(key: X25519PrivateKey | MLKEM768PrivateKey) -> bytes:
    """The raw public key."""
    return key.public_key().public_bytes_raw()


def agree(own: X25519PrivateKey, other: bytes) -> bytes:
    """The X25519 secret (32 bytes). Errors: Refusal E_KEY for a key of small order: anyone knows its result, zero."""
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        raise _degenerate() from None


def encapsulate(kem: bytes) -> tuple[bytes, bytes]:
    """A fresh ML-KEM-768 secret (32 bytes) and its ciphertext for the owner of `kem`. Errors: Refusal E_KEY."""
    try:
        return MLKEM768PublicKey.from_public_bytes(kem).encapsulate()
    except ValueError:
        raise _degenerate() from None


def decapsulate(own: MLKEM768PrivateKey, ciphertext: bytes) -> bytes:
    """The secret in `ciphertext`; for a changed one another secret, as FIPS 203 has it. Errors: Refusal E_KEY."""
    try:
        return own.decapsulate(ciphertext)
    except ValueError:
        raise _degenerate() from None


def _degenerate() -> Refusal:
    return Refusal(Code.E_KEY, "Key agreement refused", "a public key is degenerate", "Make new keys")


def _hkdf(secret: bytes, salt: bytes | None, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)
