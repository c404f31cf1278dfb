"""Shares of groups with confidence intervals that include privacy noise, and the verdict they allow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from scipy.stats import norm

RESOLVED = 3.0  # a total below so many standard deviations of its own noise may as well be empty


class Verdict(StrEnum):
    """What the evidence says against a declared tolerance."""

    PASS = "PASS"  # noqa: S105 - no password; the whole interval lies within the tolerance
    FAIL = "FAIL"  # the whole interval lies beyond it
    INCONCLUSIVE = "INCONCLUSIVE"  # the interval holds values on both sides, or nothing was declared


@dataclass(frozen=True)
class Interval:
    """An estimate and the closed range that holds the truth at the level it was made for."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of a group have a property, out of how many; each count the sum of noisy cells.

    hits, total           released sums, in records; with noise they may be negative
    hit_cells, rest_cells how many noisy cells lie in `hits`, and in `total` - `hits`
    noise                 standard deviation of one cell's privacy noise, in records; 0 is exact
    """

    hits: float
    total: float
    hit_cells: int = 1
    rest_cells: int = 1
    noise: float = 0.0

    @property
    def defined(self) -> bool:
        """Whether there is a group to divide by: at least one record, and more than noise alone would show."""
        blur = self.noise * math.sqrt(self.hit_cells + self.rest_cells)
        return self.total > 0 and self.total >= RESOLVED * blur

    @property
    def point(self) -> float | None:
        """The share, clamped into [0, 1]; None where it is undefined."""
        return min(1.0, max(0.0, self.hits / self.total)) if self.defined else None

    @property
    def spread(self) -> tuple[float, float]:
        """(a, b) of the variance a/n + b/n^2 of the share of n records: sampling, and privacy noise.

        The point is pulled towards 1/2 as by two records of each kind (Agresti and Coull 1998), so that a share of
        0 of 5 does not claim to know itself exactly.
        """
        p = (min(max(self.hits, 0.0), self.total) + 2) / (self.total + 4)
        return p * (1 - p), self.noise**2 * (self.hit_cells * (1 - p) ** 2 + self.rest_cells * p**2)


def wilson(share: Share, z: float) -> Interval:
    """Wilson's score interval of a share, widened by the noise of its counts.

    z  normal quantile of the wanted level, two-sided (1.96 for 95 %)

    All p are kept for which |hits - p total| <= z sd, where that difference has the variance
    n p (1 - p) + noise^2 (a (1 - p)^2 + b p^2): the delta-method variance of the ratio, but solved for p, as Fieller
    1954 does for a noisy denominator. Without noise this is Wilson 1927 exactly.
    """
    n, noise, p = share.total, (share.noise / share.total) ** 2, share.hits / share.total
    a, b = share.hit_cells * noise, share.rest_cells * noise
    square = 1 + z * z * (1 / n - a - b)
    linear = p + z * z * (1 / (2 * n) - a)
    constant = p * p - z * z * a
    if square <= 0:
        return Interval(p, 0.0, 1.0)
    root = math.sqrt(max(0.0, linear * linear - square * constant))
    low, high = (linear - root) / square, (linear + root) / square
    return Interval(p, min(1.0, max(0.0, low)), max(0.0, min(1.0, high)))


def difference(first: Share, second: Share, z: float) -> Interval:
    """first - second, signed, with Newcombe's hybrid score interval (Newcombe 1998, method 10) in [-1, 1]."""
    a, b = wilson(first, z), wilson(second, z)
    p, q = min(1.0, max(0.0, a.value)), min(1.0, max(0.0, b.value))
    below = math.hypot(p - min(p, a.low), max(q, b.high) - q)
    above = math.hypot(max(p, a.high) - p, q - min(q, b.low))
    return Interval(p - q, max(-1.0, p - q - below), min(1.0, p - q + above))


def ratio(first: Share, second: Share, z: float) -> Interval | None:
    """The smaller share over the larger, in [0, 1]; None where both are zero.

    The interval is the delta method's on the logarithm (Katz 1978), noise included; zero counts move by one half.
    """
    p, q = first.point or 0.0, second.point or 0.0
    if max(p, q) == 0.0:
        return None
    logs = [math.log((share.point or 0.0) + 0.5 / share.total) for share in (first, second)]
    spread = math.sqrt(sum(_log_variance(share) for share in (first, second)))
    signed = Interval(logs[0] - logs[1], logs[0] - logs[1] - z * spread, logs[0] - logs[1] + z * spread)
    far = magnitude([signed])
    value = min(p, q) / max(p, q)
    return Interval(value, min(value, math.exp(-far.high)), max(value, math.exp(-far.low)))


def magnitude(signed: Iterable[Interval]) -> Interval:
    """The largest of |d| over signed differences whose intervals hold together.

    The largest |d| is at least every lower bound of an |d| and at most the largest upper bound; so if all the signed
    intervals cover at once, this one covers too. Unlike an interval for max - min it contains 0 when all of them do.
    """
    bounds = [(abs(d.value), max(0.0, d.low, -d.high), max(abs(d.low), abs(d.high))) for d in signed]
    value, low, high = (max(column) for column in zip(*bounds, strict=True))
    return Interval(value, low, high)


def quantile(level: float, comparisons: int) -> float:
    """Two-sided normal quantile at which so many intervals hold together with probability `level` (Bonferroni)."""
    return float(norm.ppf(1 - (1 - level) / (2 * max(1, comparisons))))


def verdict(interval: Interval, tolerance: float | None) -> Verdict:
    """PASS if all of the interval lies within the tolerance, FAIL if none of it does."""
    if tolerance is None or interval.low <= tolerance < interval.high:
        return Verdict.INCONCLUSIVE
    return Verdict.PASS if interval.high <= tolerance else Verdict.FAIL


def enough(first: Share, second: Share, tolerance: float, z: float) -> int | None:
    """How many records each of two groups needs until their difference decides, if the shares stay what they are.

    Solves z^2 (a/n + b/n^2) = margin^2 for the margin between the observed gap and the tolerance.
    None where the gap sits on the tolerance: then no number decides.
    """
    gap = abs((first.point or 0.0) - (second.point or 0.0))
    margin = abs(gap - tolerance)
    sampling = first.spread[0] + second.spread[0]
    noise = first.spread[1] + second.spread[1]
    if margin < 1e-4:
        return None
    half = z * z * sampling / (2 * margin * margin)
    return math.ceil(half + math.sqrt(half * half + z * z * noise / (margin * margin)))


def _log_variance(share: Share) -> float:
    """Variance of log(share) by the delta method; a share of zero counts as one half of a record."""
    p = max(share.point or 0.0, 0.5 / share.total)
    noise = share.noise**2 * (share.hit_cells * (1 - p) ** 2 + share.rest_cells * p**2)
    return ((1 - p) / (share.total * p)) + noise / (share.total * p) ** 2
