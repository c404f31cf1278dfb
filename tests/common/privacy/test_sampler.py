"""Every record enters a step by its own coin; no batch is cut to a size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.errors import Refusal
from common.privacy.sampler import poisson
from common.randomness import ReplayEntropy, SystemEntropy


def test_batch_sizes_are_binomial_and_records_independent():
    steps, count, rate = 4000, 50, 0.2
    entropy = ReplayEntropy(7)
    taken = np.zeros((steps, count))
    for step in range(steps):
        taken[step, poisson(count, rate, entropy)] = 1
    sizes = taken.sum(1)
    assert abs(sizes.mean() - count * rate) < 5 * math.sqrt(count * rate * (1 - rate) / steps)
    assert sizes.var() == pytest.approx(count * rate * (1 - rate), rel=0.12)
    shares = taken.mean(0)
    assert np.abs(shares - rate).max() < 5 * math.sqrt(rate * (1 - rate) / steps)
    assert abs(np.corrcoef(taken[:, 0], taken[:, 1])[0, 1]) < 0.08


def test_a_batch_may_be_empty_or_whole():
    assert len(poisson(100, 1e-12, SystemEntropy())) == 0
    assert len(poisson(0, 0.5, SystemEntropy())) == 0
    assert poisson(5, 1.0, SystemEntropy()).tolist() == [0, 1, 2, 3, 4]
    assert len(poisson(100_000, math.nextafter(1, 0), SystemEntropy())) == 100_000


def test_removing_a_record_leaves_the_coins_of_those_before_it():
    whole, without = poisson(100, 0.3, ReplayEntropy(3)), poisson(99, 0.3, ReplayEntropy(3))
    assert whole[whole < 99].tolist() == without.tolist()


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.5, math.nan, True])
def test_a_rate_that_is_no_chance_is_refused(rate):
    with pytest.raises(Refusal, match="sampling rate"):
        poisson(10, rate, SystemEntropy())
