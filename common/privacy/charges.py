"""What an accountant is told of a release: a mechanism, its noise, its steps, and how far it is from the ideal one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from common.privacy.integers import SMOOTH, gaussian_divergence, sum_distance

STRIDE = 1e-6  # by how much a first guess at epsilon may be too large

Mechanism = Literal["gaussian", "discrete-gaussian", "skellam", "none"]


@dataclass(frozen=True, kw_only=True)
class Charge:
    """`steps` releases of one mechanism, as the accountant sees them.

    mechanism   "gaussian" for sums noised by N(0, (sigma * sensitivity)^2) or integers statistically close to it;
                "discrete-gaussian" and "skellam" for integers; "none" for a release without noise
    q           chance of each record to be in a step, independently of all others
    sigma       noise multiplier, standard deviation over sensitivity
    terms       noises whose sum counts; their exact sum is accounted for, not one like it
    norm, lanes of integers: largest L2 norm of what one unit adds, which is their sensitivity, and how many there are
    divergence  bound on the Kullback-Leibler divergence of one step's noise from the ideal one, in nats
    distance    bound on the statistical distance that comes on top of it, per step
    """

    mechanism: Mechanism
    q: float
    sigma: float
    steps: int
    terms: int = 1
    norm: float = 1.0
    lanes: int = 1
    divergence: float = 0.0
    distance: float = 0.0

    @property
    def counts(self) -> bool:
        """Whether a unit moves a single integer by one: then privacy losses are listed exactly."""
        return self.mechanism == "discrete-gaussian" and (self.norm, self.lanes) == (1.0, 1)

    @property
    def vector(self) -> bool:
        """Whether a unit moves many integers, of which only a norm is known: Rényi divergences account for that."""
        return self.mechanism == "skellam" or (self.mechanism == "discrete-gaussian" and not self.counts)

    def as_gaussian(self) -> Charge | None:
        """Of a vector: the Gaussian whose rounded form its noise is close to; None where no distance is proved.

        Integers plus a rounded Gaussian are a Gaussian mechanism, rounded afterwards.
        """
        total = self.sigma * self.norm
        if self.mechanism != "discrete-gaussian" or total < SMOOTH:
            return None
        apart = self.lanes * sum_distance(total / math.sqrt(self.terms), self.terms)
        ideal = replace(self, mechanism="gaussian", terms=1, norm=1.0, lanes=1)
        return replace(ideal, divergence=gaussian_divergence(total, self.lanes), distance=self.distance + apart)


def total_distance(charges: Iterable[Charge]) -> float:
    """Statistical distance of all `charges` together from their ideal mechanisms.

    Divergences add up along adaptive steps (chain rule); Pinsker's inequality turns their sum into a distance.
    """
    listed = list(charges)
    divergence = math.fsum(charge.divergence * charge.steps for charge in listed)
    return math.sqrt(divergence / 2) + math.fsum(charge.distance * charge.steps for charge in listed)


def beyond_distance(ideal: Callable[[float], float], delta: float, distance: float) -> float:
    """The smallest epsilon with delta_ideal(epsilon) + (1 + e^epsilon) * distance <= delta, or `math.inf`.

    ideal     epsilon of the ideal mechanisms at a delta      distance  of the real ones from them, in total variation
    """

    def at(guess: float) -> float:
        left = delta - (1 + math.exp(min(guess, 700))) * distance
        return ideal(left) if left > 0 else math.inf

    found = ideal(delta)
    step = STRIDE
    # `at` grows with its argument, so any guess with at(guess) <= guess lies above the least fixed point,
    # and at(guess) between the two: a figure on the safe side after two or three looks.
    while distance and math.isfinite(found):
        again = at(found + step)
        if again <= found + step:
            return again
        found, step = again, 2 * step
    return found
