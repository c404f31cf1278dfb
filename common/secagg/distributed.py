"""Codec of distributed differential privacy: clip, rotate, round within a norm, add integer noise, reduce mod 2^b."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from common.secagg.discrete import discrete_gaussian, sampler_distance
from common.secagg.lanes import (
    Encoded,
    Sum,
    check_finite,
    check_length,
    check_shape,
    framed,
    out_of_range,
    ring_of,
    unframed,
)
from common.secagg.masks import Lanes, Ring, lower
from common.secagg.rotation import Rotation
from common.secagg.rounding import clipped, round_within, rounded_norm
from common.secagg.skellam import skellam, skellam_distance

if TYPE_CHECKING:
    from common.randomness import Entropy

IntegerNoise = Literal["discrete-gaussian", "skellam"]
WIDEST = 2.0**30  # largest norm of a scaled contribution: squares of its integers then add up in 63 bits


@dataclass(frozen=True, kw_only=True)
class DistributedCodec:
    """Vectors of bounded norm whose noise adds up inside the sum. Values may wrap mod 2^b; check lanes do not.

    dimension     d, reals of the vector
    bits          b            sites_max  n_max, for the count lane
    clip          C, largest L2 norm of one site's vector
    metrics       q, further reals in [0, 1]; each becomes a coordinate of at most metric_share · C beside the vector
    metric_share  in the noise of the sum, a metric of 1 is worth so much of C
    scale         g, integers for one model unit
    noise, sigma  distribution and standard deviation of the noise of one site, in integers
    Guarantee: before noise, no site adds an integer vector of L2 norm above `norm`, and two sums that differ in one
    site's vector differ by no more. What that is worth with which noise: `common.privacy.distributed`.
    Source: Kairouz, Liu and Steinke 2021, algorithm 1. Errors: Refusal E_RANGE.
    """

    dimension: int
    bits: int
    sites_max: int
    clip: float
    metrics: int
    metric_share: float
    scale: float
    noise: IntegerNoise
    sigma: float

    def __post_init__(self) -> None:
        check_shape(self.dimension, self.sites_max, self.metrics)
        reals = (self.clip, self.scale, self.sigma, *((self.metric_share,) if self.metrics else ()))
        if not all(0 < each < math.inf for each in reals) or self.noise not in get_args(IntegerNoise):
            raise out_of_range("Codec", "clip, scale, noise and the share of metrics must be positive", "Correct them")
        if not self.metrics and self.metric_share:
            raise out_of_range("Codec", "a share is set aside for metrics that it does not send", "Set it to 0")
        if self.scale * self.bound > WIDEST or self.sites_max >= 1 << (self.bits - 1):
            raise out_of_range("Codec", "its scale or its sites do not fit the ring", "Lower them")

    @property
    def rotation(self) -> Rotation:
        """Of vector and metrics together."""
        return Rotation(self.dimension + self.metrics)

    @property
    def ring(self) -> Ring:
        """Rotated lanes, count, canaries, padding."""
        return ring_of(self.bits, self.rotation.lanes)

    @property
    def bound(self) -> float:
        """Largest L2 norm of one site's vector with its metrics, in model units."""
        return self.clip * math.sqrt(1 + self.metrics * self.metric_share**2)

    @property
    def norm(self) -> float:
        """K, largest L2 norm of one site's integers before noise."""
        return rounded_norm(self.scale * self.bound, self.rotation.lanes)

    @property
    def sampler_distance(self) -> float:
        """Statistical distance of one site's noise from the exact distribution, all lanes together."""
        distance = sampler_distance if self.noise == "discrete-gaussian" else skellam_distance
        return distance(self.sigma, self.rotation.lanes)

    def encode(
        self,
        values: NDArray[np.floating],
        seed: bytes,
        entropy: Entropy,
        *,
        weight: float = 1.0,
        metrics: tuple[float, ...] = (),
    ) -> Encoded:
        """One site's contribution with its share of the noise.

        values   finite reals [d]; a longer vector than `clip` is scaled down to it
        seed     public, of this round: the same for all sites and for `total`
        entropy  rounding bits, then noise; kind "system" wherever a guarantee is claimed
        weight   u in [0, 1], public; it multiplies the clipped vector and the metrics
        metrics  q reals in [0, 1]
        Errors: Refusal UPDATE_INVALID (length, not finite), E_RANGE (weight or metrics outside their range).
        """
        check_length(values, self.dimension)
        check_finite(values)
        if not 0 <= weight <= 1 or len(metrics) != self.metrics or not all(0 <= each <= 1 for each in metrics):
            raise out_of_range("Contribution", "weight or metrics are outside their range", "Correct them")
        whole = np.append(clipped(values, self.clip), np.array(metrics) * (self.metric_share * self.clip))
        turned = self.rotation.turn(whole, seed)
        turned *= weight * self.scale
        integers = round_within(turned, self.norm, entropy)
        integers += self._noise(entropy)
        return self.framed(integers)

    def framed(self, integers: NDArray[np.int64]) -> Encoded:
        """Rounded and noised integers [lanes] in the ring: those that `encode` makes of a vector.

        Errors: Refusal UPDATE_INVALID for another length.
        """
        check_length(integers, self.rotation.lanes)
        encoded = framed(self.ring, integers.size, np.zeros(0, np.int64))
        encoded.lanes[: integers.size] = lower(self.ring, integers)
        return encoded

    def open_sum(self, total: Lanes, members: int) -> Sum:
        """The sum in unmasked lanes, rotated, in integers nearest to zero. Errors: Refusal E_SUM_CHECK."""
        return unframed(self.ring, total, (self.rotation.lanes, 0), members)

    def total(self, opened: Sum, seed: bytes) -> NDArray[np.float64]:
        """Σ u·x and noise, in model units, [d]."""
        return self._reals(opened, seed)[: self.dimension]

    def metric_totals(self, opened: Sum, seed: bytes) -> NDArray[np.float64]:
        """Σ u·μ and noise of each metric, [q]."""
        return self._reals(opened, seed)[self.dimension :] / (self.metric_share * self.clip or 1.0)

    def _reals(self, opened: Sum, seed: bytes) -> NDArray[np.float64]:
        return self.rotation.back(opened.values.astype(np.float64), seed) / self.scale

    def _noise(self, entropy: Entropy) -> NDArray[np.int64]:
        draw = discrete_gaussian if self.noise == "discrete-gaussian" else skellam
        return draw(self.sigma, self.rotation.lanes, entropy)
