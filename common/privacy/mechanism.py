"""One value from which sampling, clipping, noise and accounting are all read, so that they cannot disagree."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from common.config import canonical
from common.privacy.charges import Charge, Mechanism
from common.privacy.correlated import column_norm
from common.privacy.integers import EXACT_BELOW, gaussian_divergence, sum_distance
from common.privacy.settings import Mode
from common.privacy.units import Adversary, Relation, Unit
from common.randomness import NoiseKind
from common.secagg.rotation import Rotation
from common.secagg.rounding import rounded_norm

if TYPE_CHECKING:
    from dp_accounting import DpEvent

ROUNDING = 1 + 1e-6  # what float rounding may add to a clipped norm
SAMPLER = 2.0**-100  # most that one drawn integer may differ from the exact discrete Gaussian, in distance

Partition = Literal["train", "holdout"]
Purpose = Literal["train", "counts"]


@dataclass(frozen=True, kw_only=True)
class MechanismPlan:
    """One release mechanism, complete: what is drawn, bounded, noised, and what that costs.

    partition         records it reads; the partitions of a site share no record
    sampling_rate     chance of each record to be in a step        sampler  "poisson", or "all" for a rate of 1
    noise_multiplier  z, standard deviation of the noise over the sensitivity; of the honest sites' sum in mode M2
    clip, lane_bound  largest norm of a record's gradient, and of each live metric; of a site's update, and of what says
                      whether it was clipped
    loss_bound        losses above it count as it (0 without live metrics)
    record_bound      B, largest L2 norm of everything that one unit adds: a record, in model units; in modes whose unit
                      is the site a site, in units of the clip in force
    steps, releases   accounted steps in one release, and releases that the target epsilon affords
    dimension         lanes that carry noise: parameters and live metrics, or cells
    honest            sites whose noise counts
    scale             g, integers for one unit of `record_bound`; a power of two, so that scaling is exact, but where
                      rounding is random
    bits              b, of a ring in which vectors are rotated, rounded at random and may wrap; 0: none wraps, 32 bits
    separation        rounds between two turns of a site, and how far noise is correlated; 0: every round is its own
    adaptive          whether the clip follows the norms of updates
    layered           whether it is one of two for the same release: noise for single records, inside noise for the site
    epsilon, delta    what the job asked for; 0 in mode "none"
    """

    mode: Mode
    partition: Partition
    purpose: Purpose
    mechanism: Mechanism
    sampler: Literal["poisson", "all"]
    sampling_rate: float
    noise_multiplier: float
    clip: float
    lane_bound: float
    loss_bound: float
    record_bound: float
    steps: int
    releases: int
    dimension: int
    honest: int
    scale: float
    epsilon: float
    delta: float
    unit: Unit
    relation: Relation
    adversary: Adversary
    noise: NoiseKind
    bits: int = 0
    separation: int = 0
    adaptive: bool = False
    layered: bool = False

    @cached_property
    def plan_id(self) -> str:
        """SHA-256 of the canonical form, in hex."""
        return hashlib.sha256(canonical(self)).hexdigest()

    @property
    def integers(self) -> bool:
        """Whether what leaves a site is a vector of integers, to be added up in a ring."""
        return self.purpose == "counts" or self.mode not in ("M1", "none")

    @property
    def bounds_records(self) -> bool:
        """Whether it counts for single records: a plan for the whole site does, unless another one does it better."""
        return self.unit is Unit.RECORD or not self.layered

    @property
    def bounds_sites(self) -> bool:
        """Whether what leaves by it is bounded for a whole site."""
        return self.unit is Unit.SITE or self.layered

    @property
    def central(self) -> bool:
        """Whether the coordinator adds the noise: then what leaves the site has none."""
        return self.adversary is Adversary.MODEL_USERS

    @property
    def void(self) -> bool:
        """Whether nothing may be claimed: no noise, or noise that can be repeated."""
        return self.mechanism == "none" or self.noise != "system"

    @cached_property
    def lanes(self) -> int:
        """Integers or reals that leave a site in one release: of a rotated vector some more than it has dimensions."""
        return Rotation(self.dimension).lanes if self.bits else self.dimension

    @property
    def sensitivity(self) -> float:
        """Most that one unit moves what is noised, in L2 norm and in the units of the noise.

        Rounding a sum to integers moves each of d lanes by at most 1 more: g B + sqrt(d). Random rounding is repeated
        until its result has the norm that `rounded_norm` says.
        """
        if self.purpose == "counts":
            return 1.0
        if self.bits:
            return rounded_norm(self.scale * self.record_bound, self.lanes)
        bound = self.record_bound * ROUNDING
        return self.scale * bound + math.sqrt(self.dimension) if self.integers else bound

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise that one site adds to each lane, so that `honest` sites reach the total.

        Of correlated noise, of the normal numbers that it is made from: one turn moves several rounds.
        """
        return self.noise_multiplier * self.sensitivity * column_norm(self.separation) / math.sqrt(self.honest)

    @property
    def sum_deviation(self) -> float:
        """Standard deviation of the noise of one report in the sum, in model units, or in records for counts."""
        return self.sigma / self.scale

    def charge(self, steps: int | None = None) -> Charge:
        """What `steps` accounted steps cost (all steps of one release if not given)."""
        steps = self.steps if steps is None else steps
        if self.bits:
            return self._charge_of_a_vector(steps)
        noisy = self.integers and self.mechanism != "none" and not self.separation
        counts = self.mechanism == "discrete-gaussian"
        total = self.sigma * math.sqrt(self.honest)
        exact = counts and total < EXACT_BELOW
        apart = self.honest * SAMPLER + (0.0 if exact else sum_distance(self.sigma, self.honest))
        return Charge(
            mechanism=self.mechanism,
            q=self.sampling_rate,
            sigma=self.noise_multiplier,
            steps=steps,
            terms=self.honest if exact else 1,
            divergence=gaussian_divergence(total, self.dimension) if noisy and not counts else 0.0,
            distance=self.dimension * apart if noisy else 0.0,
        )

    def _charge_of_a_vector(self, steps: int) -> Charge:
        return Charge(
            mechanism=self.mechanism,
            q=self.sampling_rate,
            sigma=self.noise_multiplier,
            steps=steps,
            terms=self.honest,
            norm=self.sensitivity,
            lanes=self.lanes,
            distance=self.lanes * self.honest * SAMPLER,
        )

    def event(self, steps: int | None = None) -> DpEvent:
        """The same as an event of dp-accounting, for other accountants (of counts: the Gaussian close to it)."""
        import dp_accounting

        charge = self.charge(steps)
        if charge.mechanism == "none":
            return dp_accounting.NonPrivateDpEvent()
        once = dp_accounting.PoissonSampledDpEvent(charge.q, dp_accounting.GaussianDpEvent(charge.sigma))
        return dp_accounting.SelfComposedDpEvent(once, charge.steps)
