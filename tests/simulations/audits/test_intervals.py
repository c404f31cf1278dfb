"""Intervals hold the truth as often as they say, with and without privacy noise; verdicts follow from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from simulations.audits.intervals import (
    Interval,
    Share,
    Verdict,
    difference,
    enough,
    magnitude,
    quantile,
    ratio,
    verdict,
    wilson,
)

Z = quantile(0.95, 1)


def drawn(rng: np.random.Generator, p: float, n: int, noise: float) -> Share:
    """A share of n records with probability p, as it would be released."""
    hits = rng.binomial(n, p)
    first, second = rng.normal(0, noise, 2) if noise else (0.0, 0.0)
    return Share(hits=hits + first, total=n + first + second, noise=noise)


def test_without_noise_the_interval_is_wilsons():
    for hits, total in [(0, 10), (3, 10), (50, 80), (80, 80)]:
        ours = wilson(Share(hits=hits, total=total), Z)
        theirs = binomtest(hits, total).proportion_ci(method="wilson")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_newcombes_published_example_is_reproduced():
    """Newcombe 1998, table II: 56/70 against 48/80, method 10."""
    found = difference(Share(hits=56, total=70), Share(hits=48, total=80), Z)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(
    ("n", "noise", "p", "q"),
    [(200, 0, 0.5, 0.5), (2000, 0, 0.3, 0.4), (200, 10, 0.4, 0.3), (1000, 30, 0.5, 0.4), (200, 5, 0.2, 0.2)],
)
def test_a_95_percent_interval_covers_93_to_97_percent(n: int, noise: float, p: float, q: float):
    rng = np.random.default_rng(20261)
    trials = 4000
    covered = 0
    for _ in range(trials):
        found = difference(drawn(rng, p, n, noise), drawn(rng, q, n, noise), Z)
        covered += found.low <= p - q <= found.high
    assert 0.93 <= covered / trials <= 0.97


def test_an_interval_that_forgets_the_noise_covers_too_little():
    """The reason why noise is an argument: at 30 per cell, naive intervals miss the truth far too often."""
    rng = np.random.default_rng(7)
    naive = 0
    for _ in range(500):
        a, b = (drawn(rng, 0.4, 200, 30) for _ in range(2))
        blind = [Share(hits=min(max(s.hits, 0), s.total), total=s.total) for s in (a, b) if s.total > 0]
        if len(blind) == 2:
            found = difference(blind[0], blind[1], Z)
            naive += found.low <= 0 <= found.high
    assert naive / 500 < 0.7


@given(
    st.tuples(*[st.integers(0, 50)] * 4),
    st.floats(0, 20),
    st.floats(0.5, 4.5),
)
def test_an_interval_holds_its_estimate_and_stays_in_range(cells: tuple[int, ...], noise: float, z: float):
    a = Share(hits=cells[0], total=cells[0] + cells[1], noise=noise)
    b = Share(hits=cells[2], total=cells[2] + cells[3], noise=noise)
    if not (a.defined and b.defined):
        return
    found = difference(a, b, z)
    assert -1 <= found.low <= found.value <= found.high <= 1
    mirrored = difference(b, a, z)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    times = ratio(a, b, z)
    assert times is None or 0 <= times.low <= times.value <= times.high <= 1


def test_noise_never_narrows_an_interval():
    exact = difference(Share(hits=60, total=200), Share(hits=40, total=200), Z)
    noisy = difference(Share(hits=60, total=200, noise=5), Share(hits=40, total=200, noise=5), Z)
    assert noisy.low < exact.low < exact.high < noisy.high


def test_a_share_of_nobody_is_undefined_and_not_zero():
    assert Share(hits=0, total=0).point is None
    assert Share(hits=9, total=12, noise=10).point is None, "nobody can be told from noise here"
    assert Share(hits=0, total=9).point == 0.0


def test_the_largest_gap_covers_zero_when_every_gap_does():
    both = [Interval(0.1, -0.1, 0.3), Interval(-0.2, -0.5, 0.1)]
    assert magnitude(both) == Interval(0.2, 0.0, 0.5)
    assert magnitude([*both, Interval(-0.6, -0.8, -0.4)]) == Interval(0.6, 0.4, 0.8)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 0.1, "PASS"), (0.0, 0.11, "INCONCLUSIVE"), (0.1, 0.3, "INCONCLUSIVE"), (0.11, 0.3, "FAIL")],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(low: float, high: float, expected: str):
    assert verdict(Interval(low, low, high), 0.1) == expected
    assert verdict(Interval(low, low, high), None) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("noise", [0.0, 20.0])
def test_the_number_that_would_decide_does_decide(noise: float):
    """With that many records and the same shares the interval just reaches the tolerance; with half of them not."""
    a, b = Share(hits=30, total=100, noise=noise / 10), Share(hits=25, total=100, noise=noise / 10)
    needed = enough(a, b, 0.1, Z)
    assert needed is not None
    assert needed > 100
    for factor, decided in ((1.1, True), (0.5, False)):
        n = needed * factor
        grown = [Share(hits=p * n, total=n, noise=noise / 10) for p in (0.30, 0.25)]
        assert (magnitude([difference(*grown, Z)]).high <= 0.1) is decided


def test_no_number_decides_a_gap_that_sits_on_the_tolerance():
    assert enough(Share(hits=40, total=100), Share(hits=30, total=100), 0.1, Z) is None


def test_bonferroni_widens_with_the_number_of_comparisons():
    assert quantile(0.95, 1) == pytest.approx(1.959964, abs=1e-6)
    assert quantile(0.95, 45) == pytest.approx(3.26, abs=0.01)
    assert math.isfinite(quantile(0.95, 0))
