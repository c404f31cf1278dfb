"""Two kinds of randomness that never mix: public worlds replay from a seed, secret noise takes no seed."""

from __future__ import annotations

import hashlib
import os
from typing import Literal, Protocol

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

NoiseKind = Literal["system", "replay"]

_ZEROS = memoryview(bytes(1 << 16))  # encrypted, they are the stream; so many at a time stay in the cache


def child(seed: int, *path: object) -> torch.Generator:
    """A torch stream of its own for a place such as ("cohort", 4): adding a draw elsewhere moves nothing here.

    For public choices only (splits, cohorts, initial weights), never for noise.
    """
    return torch.Generator().manual_seed(int.from_bytes(_place(seed, path)[:7], "big"))


def child_numpy(seed: int, *path: object) -> np.random.Generator:
    """As `child`, for numpy."""
    return np.random.default_rng(np.frombuffer(_place(seed, path), np.uint32))


class Entropy(Protocol):
    """A stream of uniform bits. `kind` is written into every privacy claim that rests on it."""

    @property
    def kind(self) -> NoiseKind:
        """ "system" or "replay"."""

    def bytes(self, count: int) -> bytes:
        """The next `count` uniform bytes."""

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next `count` uniform 64-bit words."""


class _Keystream:
    """AES-256-CTR from counter zero; never printed, copied or pickled."""

    __slots__ = ("_next",)

    def __init__(self, key: bytes):
        self._next = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def __repr__(self) -> str:
        return type(self).__name__

    def __reduce__(self) -> str:
        raise TypeError("a stream of noise is neither copied nor pickled")

    def bytes(self, count: int) -> bytes:
        return self._next.update(b"\0" * count)

    def words(self, count: int) -> NDArray[np.uint64]:
        words: NDArray[np.uint64] = np.empty(count + 2, "<u8")  # the cipher asks for room beyond what it writes
        room = memoryview(words.data).cast("B")
        for start in range(0, 8 * count, len(_ZEROS)):
            self._next.update_into(_ZEROS[: 8 * count - start], room[start:])
        return words[:count].astype(np.uint64, copy=False)


class SystemEntropy(_Keystream):
    """Cryptographic stream under a fresh key of the operating system. Privacy guarantees hold only with this kind."""

    __slots__ = ()
    kind: NoiseKind = "system"

    def __init__(self) -> None:
        super().__init__(os.urandom(32))


class ReplayEntropy(_Keystream):
    """The same stream for the same seed and path: whoever knows them can subtract the noise.

    For tests and bit-for-bit comparisons; every claim over it is void and says so.
    """

    __slots__ = ()
    kind: NoiseKind = "replay"

    def __init__(self, seed: int, *path: object):
        super().__init__(_place(seed, path))


def noise_source(kind: NoiseKind, seed: int, *path: object) -> Entropy:
    """The stream for one release. `seed` and `path` count only for kind "replay"."""
    return SystemEntropy() if kind == "system" else ReplayEntropy(seed, *path)


def _place(seed: int, path: tuple[object, ...]) -> bytes:
    return hashlib.sha256(repr((seed, path)).encode()).digest()
