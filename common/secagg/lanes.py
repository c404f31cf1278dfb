"""Lanes around a vector: its integers, a count, further integers, canaries; they tell a true sum from noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.secagg.masks import Lanes, Ring, lift, lower

CANARIES = 8  # lanes that are zero at every site


@dataclass(frozen=True)
class Encoded:
    """A vector in its ring, not yet masked: a site's secret, never printed. Only a codec makes one.

    Masking overwrites `lanes`.
    """

    ring: Ring
    lanes: Lanes = field(repr=False)


@dataclass(frozen=True)
class Sum:
    """An opened sum whose check lanes were right.

    count   reports in it
    values  exact sums of the vector's integers, int64 [d]
    extras  exact sums of the codec's further integers, int64 [q]
    """

    count: int
    values: NDArray[np.int64]
    extras: NDArray[np.int64]

    def __add__(self, other: Sum) -> Sum:
        """The sum over the reports of both, which must be of different sites."""
        return Sum(self.count + other.count, self.values + other.values, self.extras + other.extras)


class Codec(Protocol):
    """What opening a sum needs to know of a codec."""

    @property
    def ring(self) -> Ring:
        """The ring that reports are added in."""

    def open_sum(self, total: Lanes, members: int) -> Sum:
        """The sum in unmasked lanes."""


def ring_of(bits: int, lanes: int) -> Ring:
    """The ring for `lanes` integers beside count and canaries, padded to a multiple of 4. Errors: Refusal E_RANGE."""
    return Ring(bits, -(-(lanes + 1 + CANARIES) // 4) * 4)


def framed(ring: Ring, dimension: int, extras: NDArray[np.int64]) -> Encoded:
    """Lanes of one site: values still zero, a count of one, extras, canaries and padding of zero."""
    lanes = ring.zeros()
    lanes[dimension] = 1
    lanes[dimension + 1 : dimension + 1 + extras.size] = lower(ring, extras)
    return Encoded(ring, lanes)


def unframed(ring: Ring, total: Lanes, sizes: tuple[int, int], members: int) -> Sum:
    """The parts of a sum of `framed` lanes; sizes: of values and extras. Errors: Refusal E_SUM_CHECK."""
    integers = lift(ring, total)
    values, extras, rest = np.split(np.delete(integers, sizes[0]), [sizes[0], sum(sizes)])
    count = int(integers[sizes[0]])
    if count != members or rest.any():
        raise unlike("its check lanes are not those of these reports")
    return Sum(members, values, extras)


def check_length(values: NDArray[Any], dimension: int) -> None:
    """Refuse a contribution of another shape than [dimension]. Errors: Refusal UPDATE_INVALID."""
    if values.shape != (dimension,):
        raise unusable(f"its shape is {values.shape}, not ({dimension},)", "Use the job in force")


def check_finite(values: NDArray[np.floating]) -> None:
    """Refuse a contribution with a value that is no number. Errors: Refusal UPDATE_INVALID."""
    if not np.isfinite(values).all():
        raise unusable("it holds values that are not finite", "Lower the learning rate or look for missing values")


def check_shape(dimension: int, sites_max: int, metrics: int) -> None:
    """Refuse a codec without values or for fewer than two sites. Errors: Refusal E_RANGE."""
    if dimension < 1 or sites_max < 2 or metrics < 0:
        raise out_of_range("Codec", "it needs a dimension, and at least two sites", "Correct its settings")


def out_of_range(what: str, why: str, do: str) -> Refusal:
    """The refusal of settings or values that do not fit the ring."""
    return Refusal(Code.E_RANGE, f"{what} refused", why, do)


def unusable(why: str, do: str) -> Refusal:
    """The refusal of a contribution."""
    return Refusal(Code.UPDATE_INVALID, "Contribution refused", why, do)


def unlike(why: str) -> Refusal:
    """The refusal of a sum that cannot have come from these reports."""
    return Refusal(Code.E_SUM_CHECK, "Sum refused", why, "Repeat the round under another number; keep the transcript")
