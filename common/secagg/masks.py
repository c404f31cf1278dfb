"""Masks: a ring of integers, AES keystreams added to a vector of it, and its packed bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from common.errors import Code, Refusal

Lanes: TypeAlias = NDArray[np.unsignedinteger[Any]]  # uint16 if b = 16, else uint32; little-endian
Integers: TypeAlias = NDArray[np.int32] | NDArray[np.int64]
BITS = (16, 20, 24, 28, 32)

_BLOCK = 1 << 18  # bytes of keystream at a time: vector block and keystream stay in the second-level cache
_AHEAD = 64  # streams open at once
_ZEROS = bytes(_BLOCK)
_Stream: TypeAlias = Callable[[bytes | memoryview, bytearray], int]


@dataclass(frozen=True)
class Ring:
    """Vectors of `lanes` integers mod 2^`bits`.

    bits   b, one of 16, 20, 24, 28, 32
    lanes  D, a multiple of 4, so that packed lanes end on a byte; below 2^32
    Errors: Refusal E_RANGE.
    """

    bits: int
    lanes: int

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise Refusal(Code.E_RANGE, f"Ring of {self.bits} bits", f"widths are {BITS}", "Choose one of them")
        if not 0 < self.lanes < 2**32 or self.lanes % 4:
            why = "a vector has a multiple of 4 lanes, fewer than 2^32"
            raise Refusal(Code.E_RANGE, f"Vector of {self.lanes} lanes", why, "Pad it")

    @property
    def dtype(self) -> np.dtype[Any]:
        """What one lane is stored in; its bits above `bits` mean nothing until `reduce`."""
        return np.dtype("<u2" if self.bits == 16 else "<u4")

    @property
    def packed(self) -> int:
        """Bytes of a packed vector."""
        return self.lanes * self.bits // 8

    def zeros(self) -> Lanes:
        """The vector of zeros."""
        return np.zeros(self.lanes, self.dtype)


def keystream(key: bytes) -> _Stream:
    """PRG(k): the AES-256 keystream from counter block 0^120 ‖ 02, by the fastest path that this machine has.

    GCM under a zero nonce is that stream; only its vectorised code is wanted, its tag never exists. A key makes
    one stream in its life, so the nonce may be constant.
    """
    try:
        return gcm_stream(key)
    except UnsupportedAlgorithm:
        return ctr_stream(key)


def gcm_stream(key: bytes) -> _Stream:
    """The keystream by AES-256-GCM. At most 2^36 - 32 bytes."""
    return Cipher(algorithms.AES256(key), modes.GCM(bytes(12))).encryptor().update_into


def ctr_stream(key: bytes) -> _Stream:
    """The same keystream by AES-256-CTR."""
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(15) + b"\x02")).encryptor().update_into


def add_masks(keys: Sequence[bytes], lanes: Lanes, stream: Callable[[bytes], _Stream] = keystream) -> None:
    """lanes += Σ PRG(key), in place, mod 2^16 or 2^32.

    keys  32 bytes each
    Block-major: all streams on one block of the vector before the next block, one buffer for all of them.
    Beyond `lanes` it takes 512 KiB, whatever d and however many keys.
    """
    buffer = bytearray(_BLOCK + 16)
    step = _BLOCK // lanes.itemsize
    for start in range(0, len(keys), _AHEAD):
        streams = [stream(key) for key in keys[start : start + _AHEAD]]
        for first in range(0, lanes.size, step):
            block = lanes[first : first + step]
            zeros = memoryview(_ZEROS)[: block.nbytes]
            masks = np.frombuffer(buffer, lanes.dtype, block.size)
            for update_into in streams:
                update_into(zeros, buffer)
                np.add(block, masks, out=block)


def reduce(ring: Ring, lanes: Lanes) -> Lanes:
    """`lanes` itself, taken mod 2^b in place."""
    if ring.bits not in (16, 32):
        np.bitwise_and(lanes, ring.dtype.type((1 << ring.bits) - 1), out=lanes)
    return lanes


def pack(ring: Ring, lanes: Lanes) -> bytes:
    """The bytes of a reduced vector: lanes one after the other, b bits each, lowest bit first."""
    if ring.bits in (16, 32):
        return lanes.astype(ring.dtype, copy=False).tobytes()
    words = lanes if ring.bits == 24 else _paired(ring, lanes)
    body = bytearray(ring.packed + words.itemsize)
    # Words are wider than their places: each writes zeros beyond its end, which the next one overwrites.
    _places(ring, body, words)[:] = words
    return bytes(memoryview(body)[: ring.packed])


def unpack(ring: Ring, body: bytes) -> Lanes:
    """The vector in `body`: new, reduced. Errors: Refusal MESSAGE_INVALID for another length."""
    if len(body) != ring.packed:
        why = f"{ring.lanes} lanes of {ring.bits} bits have {ring.packed}"
        raise Refusal(Code.MESSAGE_INVALID, f"Vector of {len(body)} bytes not read", why, "Use the job in force")
    if ring.bits in (16, 32):
        return np.frombuffer(body, ring.dtype).copy()
    words = np.empty(ring.lanes if ring.bits == 24 else ring.lanes // 2, "<u4" if ring.bits == 24 else "<u8")
    step = ring.packed // words.size
    safe = words.size - words.itemsize // step - 1  # words that end within the body, though they are wider than a place
    words[:safe] = _places(ring, body, words[:safe])
    words[safe:] = _places(ring, body[safe * step :] + bytes(words.itemsize), words[safe:])
    if ring.bits == 24:
        return reduce(ring, words)
    lanes = np.empty(ring.lanes, ring.dtype)
    lanes[0::2] = words
    words >>= np.uint64(ring.bits)
    lanes[1::2] = words
    return reduce(ring, lanes)


def lift(ring: Ring, lanes: Lanes) -> NDArray[np.int64]:
    """The integers nearest to zero that `lanes` stands for: [-2^(b-1), 2^(b-1))."""
    signed = np.dtype("<i2" if ring.bits == 16 else "<i4")
    spare = lanes.itemsize * 8 - ring.bits
    lifted: NDArray[np.int64] = ((lanes << ring.dtype.type(spare)).view(signed) >> signed.type(spare)).astype(np.int64)
    return lifted


def lower(ring: Ring, integers: Integers) -> Lanes:
    """The integers mod 2^b: the inverse of `lift`."""
    return reduce(ring, integers.astype(ring.dtype))


def _paired(ring: Ring, lanes: Lanes) -> NDArray[np.uint64]:
    """Two lanes a word: where b is no multiple of 8, only pairs end on a byte."""
    pairs = lanes[1::2].astype("<u8")
    pairs <<= np.uint64(ring.bits)
    pairs |= lanes[0::2]
    return pairs


def _places(ring: Ring, body: bytes | bytearray, words: NDArray[Any]) -> NDArray[Any]:
    """The first places of a packed vector, each seen as a word that begins there and overlaps the next."""
    step = 3 if ring.bits == 24 else ring.bits // 4
    return np.ndarray(words.shape, words.dtype, body, strides=(step,))
