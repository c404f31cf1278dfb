"""Signing identities: who said this, checked against keys that the manifest names."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from common.errors import Code, Refusal

REMEMBERED = 4096  # signatures that were accepted: keys and reports of a session come again with every round
REMEMBERED_BYTES = 2048  # of a message; longer ones are met once


class Signer:
    """A private Ed25519 key. It is never printed and never leaves this object except to its own file."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey):
        self._key = key
        self.public: bytes = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def __repr__(self) -> str:
        return f"Signer({self.public.hex()[:16]})"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")

    @classmethod
    def generate(cls) -> Signer:
        """A new identity from system entropy."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Signer:
        """The identity of a 32-byte seed; for test vectors."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, path: Path) -> Signer:
        """The identity stored by `save`. Errors: Refusal FILE_MISSING, CONFIG_INVALID."""
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(path.read_bytes()))
        except FileNotFoundError:
            raise Refusal(
                Code.FILE_MISSING, f"Identity {path} not read", "there is no such file", "Restore it or join anew"
            ) from None
        except PermissionError:
            raise Refusal(
                Code.FILE_MISSING, f"Identity {path} not read", "this user may not read it", "Run as the site's user"
            ) from None
        except ValueError:
            raise Refusal(
                Code.CONFIG_INVALID, f"Identity {path} not read", "it is no Ed25519 key", "Restore it or join anew"
            ) from None

    def save(self, path: Path) -> None:
        """Write the private key to a new file of mode 0600. Errors: Refusal FILE_EXISTS."""
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise Refusal(
                Code.FILE_EXISTS, f"{path} not written", "a key is there already", "Choose another place"
            ) from None
        with os.fdopen(handle, "wb") as file:
            file.write(self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())

    def sign(self, context: bytes, *parts: bytes) -> bytes:
        """Signature (64 bytes) over `context` and the parts.

        The parts are joined as they are, as the protocol's formulas have it: all but the last have a fixed size.
        """
        return self._key.sign(context + b"".join(parts))


def verify(public: bytes, signature: bytes, context: bytes, *parts: bytes) -> None:
    """Accept only a signature by `public` over `context` and the parts.

    Errors: Refusal E_SIG, the same for every fault.
    """
    message = context + b"".join(parts)
    try:
        (_accept_again if len(message) <= REMEMBERED_BYTES else _accept)(public, signature, message)
    except (InvalidSignature, ValueError):
        raise Refusal(
            Code.E_SIG, "Signature refused", "it does not verify", "Use the key that the manifest names"
        ) from None


def _accept(public: bytes, signature: bytes, message: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(public).verify(signature, message)


@lru_cache(maxsize=REMEMBERED)
def _accept_again(public: bytes, signature: bytes, message: bytes) -> None:
    """As `_accept`; what was accepted before is so again without being computed. A refusal is never remembered."""
    _accept(public, signature, message)
