"""Shares of a 32-byte secret: any `threshold` of them rebuild it, one fewer tell nothing about it.

A polynomial over the integers mod p = 2^256 + 297 whose constant term is the secret; share x is its value at x.
Source: Shamir 1979.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from common.errors import Code, Refusal

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
HOLDERS_MAX = 4096

_COMMITMENT = b"alm-v1/share\0"


def share(
    secret: bytes, threshold: int, holders: int, draw: Callable[[int], int] = secrets.randbelow
) -> tuple[bytes, ...]:
    """The shares (33 bytes each) of holders 1, 2, … `holders`.

    secret  32 bytes
    draw    a uniform integer below its argument, from system entropy outside of tests
    Guarantee: any `threshold` shares rebuild the secret; with one fewer, every secret is as likely as before.
    Errors: Refusal E_SHARE for a secret of another length or a threshold that `holders` cannot reach.
    """
    if len(secret) != SECRET_BYTES or not 2 <= threshold <= holders <= HOLDERS_MAX:
        why = f"it needs {SECRET_BYTES} bytes and a threshold of 2 to {holders} holders"
        raise _refused("Secret not shared", why, "Correct the rules")
    return from_coefficients(secret, [draw(PRIME) for _ in range(threshold - 1)], holders)


def from_coefficients(secret: bytes, coefficients: Sequence[int], holders: int) -> tuple[bytes, ...]:
    """`share` with given coefficients of x, x², …: for vectors. Elsewhere they are drawn afresh."""
    values = []
    for x in range(1, holders + 1):
        value = 0
        for coefficient in reversed(coefficients):  # Horner
            value = (value + coefficient) * x % PRIME
        values.append((value + int.from_bytes(secret, "big")) % PRIME)
    return tuple(value.to_bytes(SHARE_BYTES, "big") for value in values)


def join(shares: Mapping[int, bytes]) -> bytes:
    """The secret behind shares by holder number.

    shares  as many as the threshold, or more: from fewer, or from false ones, comes another secret or a refusal, so
            whoever joins checks each against its `commitment`, and the secret against what is known of it
    Errors: Refusal E_SHARE for a share that is no field element, a holder below 1, or a result that is no secret.
    """
    points = tuple(sorted(shares))
    values = [int.from_bytes(shares[x], "big") for x in points]
    whole = all(len(shares[x]) == SHARE_BYTES for x in points) and all(value < PRIME for value in values)
    if not whole or not points or points[0] < 1 or points[-1] > HOLDERS_MAX:
        raise _refused("Shares not joined", "one of them is no share", "Leave it out")
    joined = sum(weight * value for weight, value in zip(_weights(points), values, strict=True)) % PRIME
    if joined >= 2**256:
        raise _refused("Shares not joined", "together they are no secret", "Find the false one by its commitment")
    return joined.to_bytes(SECRET_BYTES, "big")


def commitment(place: bytes, share: bytes) -> bytes:
    """SHA-256 of a share and of where it belongs: published with the shares, it finds a false one.

    place  whose secret, whose share; of a fixed size
    Whoever knows all but one share of a threshold cannot test guesses: a share carries 256 bits unknown to them.
    """
    return hashlib.sha256(_COMMITMENT + place + share).digest()


@lru_cache(maxsize=1024)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange weights at 0: the same for every secret whose shares came from these holders."""
    weights = []
    for x in points:
        above, below = 1, 1
        for other in points:
            if other != x:
                above, below = above * other % PRIME, below * (other - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)


def _refused(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.E_SHARE, what, why, do)
