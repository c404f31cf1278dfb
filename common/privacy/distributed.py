"""Site-level mechanisms whose noise adds up inside secure aggregation: codec, noise and cost read from one value.

The unit is a site: neighbouring federations differ in one site's vector, which is there or replaced by zero. That the
site takes part, and when, is not hidden; nor is anything that it sends besides. The guarantee holds against the
coordinator, every user of the sums and `colluding` sites together, as long as secure aggregation opens only sums of
at least `quorum` reports. It says nothing about single records that a bound for the site does not say, and is never
added to record-level figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.config import finite
from common.errors import Code, Refusal
from common.privacy.accounting import MOST_STEPS
from common.privacy.renyi import Shift, discrete_gaussian_curve, epsilon_of, skellam_curve
from common.privacy.units import Adversary, Unit
from common.secagg.distributed import WIDEST, DistributedCodec, IntegerNoise
from common.secagg.rotation import Rotation
from common.secagg.rounding import rounded_norm
from common.secagg.skellam import SIGMA_MAX

SPAN = 4  # standard deviations of a lane's sum that fit the ring: about 6e-5 of the lanes wrap
WITHIN = 1 - 1e-12  # so that float rounding leaves a product below the limit that it was divided from
UNIT, ADVERSARY = Unit.SITE, Adversary.SERVER_AND_COLLUDERS


@dataclass(frozen=True, kw_only=True)
class SiteMechanism:
    """One release a round: clip, rotate, round, add integer noise, sum mod 2^b.

    noise             distribution of each site's noise
    dimension         reals of a site's vector          clip  C, its largest L2 norm
    metrics           further reals beside it           metric_share  of C, the most that each of them adds
    bits              of the ring                       sites_max  most reports in a sum
    quorum            fewest reports in a sum           colluding  sites whose noise the coordinator may know
    noise_multiplier  z, standard deviation of the noise of quorum - colluding sites over the bound of one site
    Errors: Refusal JOB_INVALID.
    """

    noise: IntegerNoise
    dimension: int
    metrics: int
    metric_share: float
    clip: float
    bits: int
    sites_max: int
    quorum: int
    colluding: int
    noise_multiplier: float

    def __post_init__(self) -> None:
        if self.colluding < 0 or self.honest < 1 or self.quorum > self.sites_max:
            raise _refused(
                f"A quorum of {self.quorum} with {self.colluding} colluding of {self.sites_max} sites",
                "no honest site would be sure to add noise",
                "Raise the quorum or expect fewer colluding sites",
            )
        if not 0 < self.noise_multiplier < math.inf:
            raise _refused(f"noise_multiplier = {self.noise_multiplier}", "it must be positive", "Calibrate it")
        if self._room <= 0:
            raise _refused(
                f"{self.bits} bits for {self.sites_max} sites", "rounding alone would overflow them", "Take more bits"
            )

    @property
    def honest(self) -> int:
        """Sites whose noise is sure to be in every sum and unknown to the adversary."""
        return self.quorum - self.colluding

    @property
    def bound(self) -> float:
        """Largest L2 norm of what one site adds, metrics included, in model units."""
        return self.clip * math.sqrt(1 + self.metrics * self.metric_share**2)

    @property
    def local_deviation(self) -> float:
        """Standard deviation of one site's noise in model units: `honest` sites reach the total, whoever drops out."""
        return self.noise_multiplier * self.bound / math.sqrt(self.honest)

    @property
    def scale(self) -> float:
        """g, integers for one model unit: as fine as `SPAN` deviations of a sum of all sites allow.

        A lane's sum spreads by B²n²/d for the rotated vectors, n/4g² for rounding, and the noise of all n sites.
        Source: Kairouz, Liu and Steinke 2021, with ρ = 1.
        """
        spread = self.bound**2 * self.sites_max**2 / self._lanes + self.sites_max * self.local_deviation**2
        fitting = math.sqrt(self._room) / (2 * SPAN * math.sqrt(spread))
        drawable = SIGMA_MAX / self.local_deviation if self.noise == "skellam" else math.inf
        return min(fitting, WITHIN * drawable, WITHIN * WIDEST / self.bound)

    @property
    def codec(self) -> DistributedCodec:
        """What sites encode with and the coordinator opens with. Errors: Refusal E_RANGE."""
        return DistributedCodec(
            dimension=self.dimension,
            bits=self.bits,
            sites_max=self.sites_max,
            clip=self.clip,
            metrics=self.metrics,
            metric_share=self.metric_share,
            scale=self.scale,
            noise=self.noise,
            sigma=self.scale * self.local_deviation,
        )

    def curve(self, releases: int = 1) -> NDArray[np.float64]:
        """Rényi divergences of so many releases at `renyi.ORDERS`; curves of several mechanisms add up.

        Errors: Refusal CONFIG_INVALID for fewer than one release.
        """
        scale = self.scale
        shift = Shift(
            norm=rounded_norm(scale * self.bound, self._lanes),
            lanes=self._lanes,
            sigma=scale * self.local_deviation,
            terms=self.honest,
        )
        finite(releases, "releases", above=0, at_most=MOST_STEPS)
        once = discrete_gaussian_curve(shift) if self.noise == "discrete-gaussian" else skellam_curve(shift)
        return releases * once

    def epsilon(self, releases: int, delta: float) -> float:
        """Epsilon at `delta` of so many releases that one site takes part in; exactness of the noise included.

        A round that is repeated is another release. Errors: Refusal CONFIG_INVALID.
        """
        return epsilon_of(self.curve(releases), delta, releases * self.honest * self.codec.sampler_distance)

    @property
    def _lanes(self) -> int:
        return Rotation(self.dimension + self.metrics).lanes

    @property
    def _room(self) -> float:
        """(2^b)² less the part that rounding of all sites takes."""
        return 4.0**self.bits - SPAN**2 * self.sites_max


def _refused(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.JOB_INVALID, what, why, do)
