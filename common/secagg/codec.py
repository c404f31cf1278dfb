"""Codecs: a site's vector to lanes of a ring, and an opened sum back; check lanes tell a true sum from noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.secagg.masks import Integers, Lanes, Ring, lift, lower

if TYPE_CHECKING:
    from common.randomness import Entropy  # it imports torch, which a process that only reads messages has no use for

CANARIES = 8  # lanes that are zero at every site
_BLOCK = 1 << 16  # values encoded at a time, so that a pass finds in the cache what the last one left; a multiple of 4
_NARROW = 1 << 15  # steps below which a value and its sixteen rounding bits fit into 32 bits


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


class Codec(Protocol):
    """What opening a sum needs to know of a codec."""

    @property
    def ring(self) -> Ring:
        """The ring that reports are added in."""

    def open_sum(self, total: Lanes, members: int) -> Sum:
        """The sum in unmasked lanes."""


@dataclass(frozen=True, kw_only=True)
class RangeCodec:
    """Bounded reals in fixed point: the sum of up to `sites_max` sites cannot overflow.

    dimension   d, reals of the vector
    bits        b; v = b - ⌈log2 sites_max⌉ bits carry a value, the rest its sum
    sites_max   n_max
    bound       C∞, in the vector's units; larger entries are clamped to it
    weight_cap  W; a site of n records weighs u = min(n, W) / W
    metrics     q, further reals in [0, 1] beside the vector
    Errors: Refusal E_RANGE.
    """

    dimension: int
    bits: int
    sites_max: int
    bound: float
    weight_cap: float = 1.0
    metrics: int = 0

    def __post_init__(self) -> None:
        _check_shape(self.dimension, self.sites_max, self.metrics)
        if not 0 < self.bound < np.inf or not 0 < self.weight_cap < np.inf:
            raise _range("Codec", "bound and weight cap must be positive and finite", "Correct them")
        if self.steps < 1:
            why = f"{self.bits} bits cannot hold a sum of {self.sites_max} values"
            raise _range("Codec", why, "Take more bits or fewer sites")

    @property
    def ring(self) -> Ring:
        """Vector, count, weight, metrics, canaries, padding."""
        return _ring(self.bits, self.dimension + 1 + self.metrics)

    @property
    def steps(self) -> int:
        """U: integers that stand for `bound`; sites_max * U < 2^(b-1)."""
        return (1 << max(self.bits - (self.sites_max - 1).bit_length() - 1, 0)) - 1

    def encode(
        self,
        values: NDArray[np.floating],
        entropy: Entropy,
        *,
        records: float | None = None,
        metrics: tuple[float, ...] = (),
    ) -> Encoded:
        """One site's contribution u·values, rounded up or down at random so that its expectation is exact.

        values   finite reals [d]; entries beyond ±bound are clamped before they are weighted
        entropy  rounding bits; |bias| <= 2^-17 of a step
        records  n, the site's weight before the cap; None weighs 1
        metrics  q reals in [0, 1]
        Errors: Refusal UPDATE_INVALID (length, not finite), E_RANGE (weight or metrics outside their range).
        """
        _check_length(values, self.dimension)
        if not np.isfinite(values).all():
            raise _update("it holds values that are not finite", "Lower the learning rate or look for missing values")
        weight = 1.0 if records is None else min(records, self.weight_cap) / self.weight_cap
        if not 0 <= weight <= 1 or len(metrics) != self.metrics or not all(0 <= each <= 1 for each in metrics):
            raise _range("Contribution", "weight or metrics are outside their range", "Correct them")
        scale = weight * self.steps
        encoded = _framed(self.ring, self.dimension, self._rounded(np.array((1.0, *metrics)), scale, entropy))
        for first in range(0, self.dimension, _BLOCK):
            block = values[first : first + _BLOCK]
            integers = self._rounded(np.clip(block, -self.bound, self.bound), scale / self.bound, entropy)
            encoded.lanes[first : first + block.size] = lower(self.ring, integers)
        return encoded

    def _rounded(self, values: NDArray[np.floating], scale: float, entropy: Entropy) -> Integers:
        """Values times `scale`, rounded: at most ±U if |values| * scale is, up to an error of floating point.

        That error is below half of a 2^16th step, which vanishes before the rounding bits are added.
        """
        scaled = np.multiply(values, scale, dtype=np.float64)
        return stochastic_round(scaled, entropy, np.int32 if self.steps < _NARROW else np.int64)

    def open_sum(self, total: Lanes, members: int) -> Sum:
        """The sum in unmasked lanes. Errors: Refusal E_SUM_CHECK."""
        return _opened(self.ring, total, (self.dimension, 1 + self.metrics), members)

    def total(self, opened: Sum) -> NDArray[np.float64]:
        """Σ u·x in the vector's units, [d]."""
        return opened.values.astype(np.float64) * (self.bound / self.steps)

    def weight(self, opened: Sum) -> float:
        """Σ u."""
        return float(opened.extras[0]) / self.steps

    def mean(self, opened: Sum) -> NDArray[np.float64]:
        """Σ u·x / Σ u in the vector's units, [d]. Errors: Refusal E_SUM_CHECK if nobody weighs anything."""
        return self.total(opened) / self._divisor(opened)

    def metric_means(self, opened: Sum) -> tuple[float, ...]:
        """Σ u·μ / Σ u of each metric. Errors: as `mean`."""
        divisor = self._divisor(opened)
        return tuple(float(each) / self.steps / divisor for each in opened.extras[1:])

    def _divisor(self, opened: Sum) -> float:
        if opened.extras[0] <= 0:
            raise Refusal(Code.E_SUM_CHECK, "Mean refused", "the sum of weights is not positive", "Repeat the round")
        return self.weight(opened)


@dataclass(frozen=True, kw_only=True)
class IntegerCodec:
    """Integers as they are, noise included, for distributed differential privacy.

    dimension  d
    sites_max  n_max
    bits       b
    Errors: Refusal E_RANGE.
    """

    dimension: int
    sites_max: int
    bits: int = 32

    def __post_init__(self) -> None:
        _check_shape(self.dimension, self.sites_max, 0)
        if self.limit < 1:
            why = f"{self.bits} bits cannot hold a sum of {self.sites_max} values"
            raise _range("Codec", why, "Take more bits or fewer sites")

    @property
    def ring(self) -> Ring:
        """Vector, count, canaries, padding."""
        return _ring(self.bits, self.dimension)

    @property
    def limit(self) -> int:
        """Largest magnitude of one site's integer whose sum over `sites_max` sites cannot overflow."""
        return ((1 << max(self.bits - 1, 0)) - 1) // self.sites_max

    def encode(self, values: NDArray[np.int64]) -> Encoded:
        """One site's contribution.

        values  int64 [d]. Whoever adds noise chooses a scale at which `limit` lies so many deviations out that a
                refusal is as rare as a broken key: a refusal is an observable event that noise did not cover
        Errors: Refusal UPDATE_INVALID for a wrong length, E_RANGE if a sum of such values could overflow.
        """
        _check_length(values, self.dimension)
        if not np.issubdtype(values.dtype, np.integer) or values.max() > self.limit or values.min() < -self.limit:
            why = f"it holds a value that is no integer of at most {self.limit}"
            raise _range("Contribution", why, "Lower the scale or take more bits")
        encoded = _framed(self.ring, self.dimension, np.zeros(0, np.int64))
        encoded.lanes[: self.dimension] = lower(self.ring, values.astype(np.int64, copy=False))
        return encoded

    def open_sum(self, total: Lanes, members: int) -> Sum:
        """The sum in unmasked lanes. Errors: Refusal E_SUM_CHECK."""
        return _opened(self.ring, total, (self.dimension, 0), members)


def stochastic_round(
    values: NDArray[np.float64], entropy: Entropy, kind: type[np.int32 | np.int64] = np.int64
) -> Integers:
    """Each value to one of its two neighbouring integers, nearer ones more often: |bias| <= 2^-17.

    values  |value| < 2^47, or 2^15 if `kind` is int32
    """
    words = entropy.words(-(-values.size // 4))
    scaled = values * 65536.0
    sixteenths: NDArray[Any] = np.rint(scaled, out=scaled).astype(kind)
    sixteenths += words.view(np.uint16)[: values.size]
    sixteenths >>= 16
    return sixteenths


def _framed(ring: Ring, dimension: int, extras: Integers) -> Encoded:
    """Lanes: values still zero, a count of one, extras, canaries and padding of zero."""
    lanes = ring.zeros()
    lanes[dimension] = 1
    lanes[dimension + 1 : dimension + 1 + extras.size] = lower(ring, extras)
    return Encoded(ring, lanes)


def _opened(ring: Ring, total: Lanes, sizes: tuple[int, int], members: int) -> Sum:
    """The parts of `_framed` lanes; sizes: of values and extras."""
    integers = lift(ring, total)
    values, extras, rest = np.split(np.delete(integers, sizes[0]), [sizes[0], sum(sizes)])
    count = int(integers[sizes[0]])
    if count != members or rest.any():
        raise Refusal(
            Code.E_SUM_CHECK,
            "Sum refused",
            "its check lanes are not those of these reports",
            "Repeat the round under another number; keep the transcript",
        )
    return Sum(members, values, extras)


def _ring(bits: int, lanes: int) -> Ring:
    return Ring(bits, -(-(lanes + 1 + CANARIES) // 4) * 4)


def _check_length(values: NDArray[Any], dimension: int) -> None:
    if values.shape != (dimension,):
        raise _update(f"its shape is {values.shape}, not ({dimension},)", "Use the job in force")


def _check_shape(dimension: int, sites_max: int, metrics: int) -> None:
    if dimension < 1 or sites_max < 2 or metrics < 0:
        raise _range("Codec", "it needs a dimension, and at least two sites", "Correct its settings")


def _range(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.E_RANGE, f"{what} refused", why, do)


def _update(why: str, do: str) -> Refusal:
    return Refusal(Code.UPDATE_INVALID, "Contribution refused", why, do)
