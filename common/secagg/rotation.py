"""A public random rotation: it spreads a vector evenly over its lanes, so that no lane needs more range than others."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.secagg.lanes import check_length, out_of_range

BLOCK, SHORT = 1 << 16, 1 << 6  # largest block that is mixed within itself, and smallest of a vector that is longer
PADDED = 16  # one padded lane for so many values at most, where a block of SHORT or more allows it
_SIGNS = b"hushfed/rotation/v1\0"
_Vector: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Rotation:
    """Random signs, then a Walsh-Hadamard transform of each block. Norms and inner products stay.

    dimension  d, values of a vector before it is padded with zeros
    Every lane costs bytes, so blocks hold 2^16 values or the largest smaller power of two that pads by at most d/16;
    64 if none does; the next power of two from d for vectors of fewer. Value j belongs to block j mod B:
    neighbouring values, those of one layer, spread over all B blocks.
    Source: Kairouz, Liu and Steinke 2021, algorithm 1; Ailon and Chazelle 2009. Errors: Refusal E_RANGE.
    """

    dimension: int

    def __post_init__(self) -> None:
        if not 0 < self.dimension < 2**32 - BLOCK:
            raise out_of_range("Rotation", f"{self.dimension} values do not fit a vector", "Correct the dimension")

    @property
    def block(self) -> int:
        """Values of one block, a power of two."""
        size = min(BLOCK, 1 << (self.dimension - 1).bit_length())
        while size > SHORT and PADDED * (-self.dimension % size) > self.dimension:
            size //= 2
        return size

    @property
    def lanes(self) -> int:
        """Values of a rotated vector: d, padded to whole blocks."""
        return -(-self.dimension // self.block) * self.block

    def signs(self, seed: bytes) -> NDArray[np.int8]:
        """+1 or -1 for each lane: -1 where bit j (lowest of a byte first) of SHAKE-128(label ‖ seed ‖ LE64(lanes)) is.

        seed  public, the same for all sites of a sum; a new one for each round
        """
        stream = hashlib.shake_128(_SIGNS + seed + struct.pack("<Q", self.lanes)).digest(-(-self.lanes // 8))
        bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=self.lanes, bitorder="little")
        return 1 - 2 * bits.view(np.int8)

    def turn(self, vector: _Vector, seed: bytes) -> _Vector:
        """The rotated vector, float64 [lanes]. Errors: Refusal UPDATE_INVALID for another length than [d]."""
        check_length(vector, self.dimension)
        turned = np.zeros(self.lanes)
        np.multiply(vector, self.signs(seed)[: self.dimension], out=turned[: self.dimension])
        return self._mixed(turned)

    def back(self, turned: _Vector, seed: bytes) -> _Vector:
        """The vector that `turn` was given, float64 [d]. Errors: Refusal UPDATE_INVALID."""
        check_length(turned, self.lanes)
        whole = self._mixed(turned.astype(np.float64))
        whole *= self.signs(seed)
        return whole[: self.dimension]

    def _mixed(self, vector: _Vector) -> _Vector:
        """`vector` itself, every block multiplied by the symmetric orthogonal matrix H / √block, in place."""
        walsh_hadamard(vector.reshape(self.block, -1))
        vector *= 1 / math.sqrt(self.block)
        return vector


def walsh_hadamard(columns: NDArray[np.float64]) -> None:
    """Each column times the Hadamard matrix in Sylvester's order, in place; columns [2^m, B], contiguous."""
    rows, width = columns.shape
    spare, run = np.empty(columns.size // 2), width
    while run < rows * width:
        halves = columns.reshape(-1, 2, run)
        upper, lower = halves[:, 0], halves[:, 1]
        difference = np.subtract(upper, lower, out=spare.reshape(-1, run))
        upper += lower
        lower[...] = difference
        run *= 2
