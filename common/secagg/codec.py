"""Codecs: a site's vector to lanes of a ring, and an opened sum back; check lanes tell a true sum from noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.secagg.lanes import (
    CANARIES,
    Codec,
    Encoded,
    Sum,
    check_finite,
    check_length,
    check_shape,
    framed,
    out_of_range,
    ring_of,
    unframed,
    unlike,
)
from common.secagg.masks import Lanes, Ring, lower
from common.secagg.rounding import sixteenths, stochastic_round

if TYPE_CHECKING:
    from common.randomness import Entropy  # it imports torch, which a process that only reads messages has no use for

__all__ = ["CANARIES", "Codec", "Encoded", "IntegerCodec", "RangeCodec", "Sum", "stochastic_round"]

_BLOCK = 1 << 16  # values encoded at a time, so that every pass stays in the cache; a multiple of 4


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
        check_shape(self.dimension, self.sites_max, self.metrics)
        if not 1e-200 <= self.bound < np.inf or not 0 < self.weight_cap < np.inf:
            raise out_of_range("Codec", "bound and weight cap must be positive and finite", "Correct them")
        if self.steps < 1:
            why = f"{self.bits} bits cannot hold a sum of {self.sites_max} values"
            raise out_of_range("Codec", why, "Take more bits or fewer sites")

    @property
    def ring(self) -> Ring:
        """Vector, count, weight, metrics, canaries, padding."""
        return ring_of(self.bits, self.dimension + 1 + self.metrics)

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
        check_length(values, self.dimension)
        check_finite(values)
        weight = 1.0 if records is None else min(records, self.weight_cap) / self.weight_cap
        if not 0 <= weight <= 1 or len(metrics) != self.metrics or not all(0 <= each <= 1 for each in metrics):
            raise out_of_range("Contribution", "weight or metrics are outside their range", "Correct them")
        limit = weight * self.steps
        extras = stochastic_round(np.array((1.0, *metrics)) * limit, entropy)
        encoded = framed(self.ring, self.dimension, extras)
        for first in range(0, self.dimension, _BLOCK):
            block = values[first : first + _BLOCK]
            shifts = sixteenths(block.size, entropy)
            scaled = block.astype(np.float64)
            with np.errstate(over="ignore"):  # what is too large for a float is clamped like the rest
                scaled *= limit / self.bound
            np.clip(scaled, -limit, limit, out=scaled)  # so the floor below is at most ±U
            scaled += shifts
            encoded.lanes[first : first + block.size] = lower(self.ring, np.floor(scaled, out=scaled).astype(np.int32))
        return encoded

    def open_sum(self, total: Lanes, members: int) -> Sum:
        """The sum in unmasked lanes. Errors: Refusal E_SUM_CHECK, also for a sum that no such reports can have."""
        found = unframed(self.ring, total, (self.dimension, 1 + self.metrics), members)
        _refuse_beyond(found, self.steps, self.sites_max)
        if found.extras.min() < 0 or found.extras.max() > members * self.steps:
            raise unlike("its weights or metrics are larger than these reports can hold")
        return found

    def total(self, opened: Sum) -> NDArray[np.float64]:
        """Σ u·x in the vector's units, [d]."""
        return opened.values.astype(np.float64) * (self.bound / self.steps)

    def weight(self, opened: Sum) -> float:
        """Σ u."""
        return float(opened.extras[0]) / self.steps

    def records(self, opened: Sum) -> float:
        """Σ min(n, W): all that a sum tells of the sites' numbers of records."""
        return self.weight(opened) * self.weight_cap

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
        check_shape(self.dimension, self.sites_max, 0)
        if self.limit < 1:
            why = f"{self.bits} bits cannot hold a sum of {self.sites_max} values"
            raise out_of_range("Codec", why, "Take more bits or fewer sites")

    @property
    def ring(self) -> Ring:
        """Vector, count, canaries, padding."""
        return ring_of(self.bits, self.dimension)

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
        check_length(values, self.dimension)
        if not np.issubdtype(values.dtype, np.integer) or values.max() > self.limit or values.min() < -self.limit:
            why = f"it holds a value that is no integer of at most {self.limit}"
            raise out_of_range("Contribution", why, "Lower the scale or take more bits")
        encoded = framed(self.ring, self.dimension, np.zeros(0, np.int64))
        encoded.lanes[: self.dimension] = lower(self.ring, values.astype(np.int64, copy=False))
        return encoded

    def open_sum(self, total: Lanes, members: int) -> Sum:
        """The sum in unmasked lanes. Errors: Refusal E_SUM_CHECK, also for a sum that no such reports can have."""
        found = unframed(self.ring, total, (self.dimension, 0), members)
        _refuse_beyond(found, self.limit, self.sites_max)
        return found


def _refuse_beyond(found: Sum, most: int, sites_max: int) -> None:
    """Refuse a sum that needs more than `most` from one of its reports: none that was encoded here overflows."""
    if found.count > sites_max or np.abs(found.values).max() > found.count * most:
        raise unlike("its values are larger than these reports can hold")
