"""What an attack that was seen proves about epsilon: lower bounds that hold with a stated confidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import beta, binom

from common.config import finite

CONFIDENCE = 0.95
TOLERANCE = 1e-9  # of a bisection, in epsilon or mu
MOST = 700.0  # e to the power of more is no float


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """How a game went: which of the records that we made up were in the data?

    canaries  m, records of which each was in with chance one half, by a coin of ours
    made      r, of how many the attacker said in or out, fixed before any score was seen; it abstained from the rest
    right     v, how often it was right
    Errors: Refusal CONFIG_INVALID for numbers that make no game.
    """

    canaries: int
    made: int
    right: int

    def __post_init__(self) -> None:
        finite(self.canaries, "canaries", at_least=1, at_most=10_000_000)
        finite(self.made, "guesses", at_least=1, at_most=self.canaries)
        finite(self.right, "right guesses", at_least=0, at_most=self.made)


def one_run(guesses: Guesses, delta: float, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon for which (epsilon, delta)-DP would make so many right guesses too unlikely; 0 if none.

    Guarantee: a mechanism that is (epsilon, delta)-DP for adding or removing one record gives a larger figure with
    probability at most 1 - confidence, whatever the attacker did.
    Errors: Refusal CONFIG_INVALID.
    Source: Steinke, Nasr and Jagielski 2023, theorem 5.2.

    >>> round(one_run(Guesses(canaries=1000, made=1000, right=750), 1e-5), 6)
    0.976367
    """
    finite(delta, "delta", at_least=0, below=1)
    finite(confidence, "confidence", above=0, below=1)
    return _largest(lambda epsilon: chance(guesses, epsilon, delta) < 1 - confidence)


def chance(guesses: Guesses, epsilon: float, delta: float) -> float:
    """An upper bound of the probability of so many right guesses under (epsilon, delta)-DP.

    P[Bin(r, q) >= v] + 2 m delta max_i P[v - i <= Bin(r, q) < v] / i with q = e^epsilon / (1 + e^epsilon).
    """
    q = 1 / (1 + math.exp(-min(epsilon, MOST)))
    more = float(binom.sf(guesses.right - 1, guesses.made, q))
    if not delta or not guesses.right:
        return more
    below = binom.pmf(np.arange(guesses.right - 1, -1, -1), guesses.made, q)
    worst = float((np.cumsum(below) / np.arange(1, guesses.right + 1)).max())
    return min(1.0, more + 2 * guesses.canaries * delta * worst)


def one_run_gaussian(guesses: Guesses, delta: float, confidence: float = CONFIDENCE) -> float:
    """As `one_run`, but against the trade-off curves of Gaussian mechanisms: tighter where the mechanism is one.

    The figure is the epsilon at `delta` of the noisiest Gaussian mechanism that is not ruled out. Of a mechanism whose
    curve is another one it says nothing certain, so no verdict rests on it.
    Errors: Refusal CONFIG_INVALID.
    Source: Mahloujifar, Melis and Chaudhuri 2024, algorithm 3.

    >>> round(one_run_gaussian(Guesses(canaries=1000, made=1000, right=750), 1e-5), 4)
    1.8189
    """
    finite(delta, "delta", above=0, below=1)
    finite(confidence, "confidence", above=0, below=1)
    shift = _largest(lambda mu: _ruled_out(guesses, mu, 1 - confidence))
    return gaussian_epsilon(shift, delta) if shift else 0.0


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon at `delta` of one Gaussian release whose sensitivity is `mu` standard deviations.

    Source: Balle and Wang 2018, theorem 8.

    >>> round(gaussian_epsilon(1.0, 1e-5), 3)
    4.377
    """

    def excess(epsilon: float) -> float:
        return float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu)))

    return _largest(lambda epsilon: excess(epsilon) > delta)


def gaussian_shift(epsilon: float, delta: float) -> float:
    """The `mu` at which `gaussian_epsilon` is `epsilon`."""
    return _largest(lambda mu: mu == 0 or gaussian_epsilon(mu, delta) < epsilon, TOLERANCE**0.5)


def clopper_pearson(hits: int, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval of a share of which `hits` of `count` were seen, two-sided.

    Errors: Refusal CONFIG_INVALID.
    Source: Clopper and Pearson 1934.
    """
    finite(count, "count", at_least=1)
    finite(hits, "hits", at_least=0, at_most=count)
    half = (1 - confidence) / 2
    low = float(beta.ppf(half, hits, count - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - half, hits + 1, count - hits)) if hits < count else 1.0
    return low, high


def from_rates(
    true_positives: tuple[int, int], false_positives: tuple[int, int], delta: float, confidence: float = CONFIDENCE
) -> float:
    """The epsilon below which a threshold that was fixed beforehand could not have told members from others so well.

    true_positives   members above the threshold, and how many members there were; each in a run of its own
    false_positives  the same of others
    Source: Jagielski, Ullman and Oprea 2020; Nasr et al. 2021.
    """
    finite(delta, "delta", at_least=0, below=1)
    low = clopper_pearson(*true_positives, confidence)[0] - delta
    high = clopper_pearson(*false_positives, confidence)[1]
    return max(0.0, math.log(low / high)) if low > 0 else 0.0


def _ruled_out(guesses: Guesses, mu: float, significance: float) -> bool:
    """Whether a Gaussian mechanism of shift `mu` gives so many right guesses with less probability than that.

    Walks down from v right guesses to none: `right` and `wrong` are the shares of canaries of either kind that an
    attacker could reach at least, if the mechanism allowed what was seen with probability `significance`.
    """
    right = significance * guesses.right / guesses.canaries
    wrong = significance * (guesses.made - guesses.right) / guesses.canaries
    for i in range(guesses.right - 1, -1, -1):
        # Of an attack that is right on a share x, a curve of shift mu makes errors on Phi(Phi^-1(x) - mu) at least.
        least = max(wrong, float(ndtr(ndtri(right) - mu)))
        if least == wrong:
            break
        right, wrong = min(1.0, right + i / (guesses.made - i) * (least - wrong)), least
    return right + wrong > guesses.made / guesses.canaries


def _largest(holds: Callable[[float], bool], tolerance: float = TOLERANCE) -> float:
    """The largest x >= 0 up to which `holds` is true; 0 if it is false there."""
    if not holds(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while holds(high) and high < MOST:
        low, high = high, 2 * high
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
