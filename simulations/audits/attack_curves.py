"""How well scores tell members from others: areas and rates with intervals, and what differential privacy leaves."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from common.config import finite
from common.errors import Code, Refusal
from simulations.audits.intervals import Interval

Scores = NDArray[np.float64]
Statistic = Callable[[Scores, Scores], float]

DRAWS = 2000  # of a bootstrap


def auc(members: Scores, others: Scores) -> float:
    """Chance that a member scores higher than another record; ties count half. 1/2 is guessing.

    Source: Mann and Whitney 1947.
    """
    ranks = rankdata(np.concatenate([members, others]))
    above = ranks[: members.size].sum() - members.size * (members.size + 1) / 2
    return float(above / (members.size * others.size))


def hit_rate(rate: float) -> Statistic:
    """The share of members found by the lowest threshold that at most a share `rate` of others passes."""
    finite(rate, "false positive rate", at_least=0, below=1)

    def of(members: Scores, others: Scores) -> float:
        passing = math.floor(rate * others.size + 1e-9)
        threshold = np.partition(others, others.size - 1 - passing)[others.size - 1 - passing]
        return float((members > threshold).mean())

    return of


def bootstrap(
    members: Scores, others: Scores, of: Statistic, stream: np.random.Generator, *, level: float = 0.95
) -> Interval:
    """`of` with the percentile interval of resampled records, members and others each among themselves.

    Errors: Refusal DATA_INVALID for fewer than two of either, or scores that are no numbers.
    Source: Efron 1979.
    """
    if min(members.size, others.size) < 2 or np.isnan(members).any() or np.isnan(others).any():
        raise Refusal(Code.DATA_INVALID, "Attack not judged", "it needs two records of each kind", "Use more records")
    drawn = [of(_again(members, stream), _again(others, stream)) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    value = of(members, others)
    return Interval(value, min(value, float(low)), max(value, float(high)))


def _again(scores: Scores, stream: np.random.Generator) -> Scores:
    return scores[stream.integers(scores.size, size=scores.size)]


def largest_rate(rate: float, epsilon: float, delta: float) -> float:
    """The most members that any attack may find on average at a false positive rate, under (epsilon, delta)-DP.

    min(1, e^eps rate + delta, 1 - e^-eps (1 - delta - rate)): Kairouz, Oh and Viswanath 2015, from both sides.
    """
    return min(1.0, math.exp(min(epsilon, 700)) * rate + delta, 1 - math.exp(-epsilon) * (1 - delta - rate))


def largest_auc(epsilon: float, delta: float) -> float:
    """The largest area that any attack may have under (epsilon, delta)-DP: that under `largest_rate`."""
    odds = math.exp(min(epsilon, 700))
    bend = (1 - delta) / (1 + odds)
    rest = 1 - delta - bend
    return odds * bend**2 / 2 + delta * bend + rest - rest**2 / (2 * odds) + delta


def curve(members: Scores, others: Scores, rates: NDArray[np.float64]) -> list[float]:
    """`hit_rate` at each of the `rates`."""
    return [hit_rate(float(rate))(members, others) for rate in rates]
