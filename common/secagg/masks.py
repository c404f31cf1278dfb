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
    if ring.bits == 24:
        return _pack_words(lanes)
    return _pack_halves(lanes, ring.bits)


def unpack(ring: Ring, body: bytes) -> Lanes:
    """The vector in `body`: new, reduced. Errors: Refusal MESSAGE_INVALID for another length."""
    if len(body) != ring.packed:
        why = f"{ring.lanes} lanes of {ring.bits} bits have {ring.packed}"
        raise Refusal(Code.MESSAGE_INVALID, f"Vector of {len(body)} bytes not read", why, "Use the job in force")
    if ring.bits in (16, 32):
        return np.frombuffer(body, ring.dtype).copy()
    if ring.bits == 24:
        return _unpack_words(body)
    return _unpack_halves(body, ring.bits)


def lift(ring: Ring, lanes: Lanes) -> NDArray[np.int64]:
    """The integers nearest to zero that `lanes` stands for: [-2^(b-1), 2^(b-1))."""
    signed = np.dtype("<i2" if ring.bits == 16 else "<i4")
    spare = lanes.itemsize * 8 - ring.bits
    lifted: NDArray[np.int64] = ((lanes << ring.dtype.type(spare)).view(signed) >> signed.type(spare)).astype(np.int64)
    return lifted


def lower(ring: Ring, integers: NDArray[np.signedinteger[Any]]) -> Lanes:
    """The integers mod 2^b: the inverse of `lift`."""
    return reduce(ring, integers.astype(ring.dtype))


def _pack_words(lanes: Lanes) -> bytes:
    """24-bit lanes, four to three words: no pass over single bytes."""
    a, b, c, d = (lanes[first::4] for first in range(4))
    words = np.empty((lanes.size // 4, 3), "<u4")
    words[:, 0] = a | b << np.uint32(24)
    words[:, 1] = b >> np.uint32(8) | c << np.uint32(16)
    words[:, 2] = c >> np.uint32(16) | d << np.uint32(8)
    return words.tobytes()


def _unpack_words(body: bytes) -> Lanes:
    words = np.frombuffer(body, "<u4").reshape(-1, 3)
    first, second, third = words[:, 0], words[:, 1], words[:, 2]
    lanes = np.empty((len(words), 4), "<u4")
    lanes[:, 0] = first
    lanes[:, 1] = first >> np.uint32(24) | second << np.uint32(8)
    lanes[:, 2] = second >> np.uint32(16) | third << np.uint32(16)
    lanes[:, 3] = third >> np.uint32(8)
    flat: Lanes = lanes.reshape(-1)
    flat &= np.uint32(0xFFFFFF)
    return flat


def _pack_halves(lanes: Lanes, bits: int) -> bytes:
    """Lanes of 20 or 28 bits, four to bits/4 halves of a word."""
    halves = np.empty((lanes.size // 4, bits // 4), "<u2")
    for place in range(bits // 4):
        lane, skipped = divmod(16 * place, bits)
        half = lanes[lane::4] >> np.uint32(skipped)
        if skipped + 16 > bits:
            half |= lanes[lane + 1 :: 4] << np.uint32(bits - skipped)
        halves[:, place] = half
    return halves.tobytes()


def _unpack_halves(body: bytes, bits: int) -> Lanes:
    halves = np.frombuffer(body, "<u2").reshape(-1, bits // 4)
    lanes = np.empty((len(halves), 4), "<u4")
    for lane in range(4):
        place, skipped = divmod(bits * lane, 16)
        whole = halves[:, place].astype("<u4") >> np.uint32(skipped)
        for above in range(16 - skipped, bits, 16):
            place += 1
            whole |= halves[:, place].astype("<u4") << np.uint32(above)
        np.bitwise_and(whole, np.uint32((1 << bits) - 1), out=lanes[:, lane])
    return lanes.reshape(-1)
