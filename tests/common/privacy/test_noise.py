"""Noise is normal, fills both halves of its range, never repeats, and ignores every global seed."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from common.privacy.mechanism import MechanismPlan
from common.privacy.noise import integer_noise, normals
from common.privacy.plan import PrivacySettings, plan_counts
from common.randomness import ReplayEntropy, SystemEntropy

COUNTS = PrivacySettings(
    mode="M1", unit="record", epsilon=1.0, delta=1e-5, clip=1.0, sampling_rate=0.5, spare_rounds=0,
    evaluation_epsilon=1.0,
)  # fmt: skip


def test_a_million_samples_are_standard_normal(capsys):
    normals(1000, SystemEntropy())
    start = time.process_time()
    drawn = normals(1_000_000, SystemEntropy())
    with capsys.disabled():
        sys.stdout.write(f"\n{(time.process_time() - start) * 1000:.1f} ns a normal sample" + "\n")
    halves = drawn[:500_000], drawn[500_000:]  # cosine and sine
    for half in halves:
        assert kstest(half, "norm").pvalue > 1e-5
    assert abs(np.corrcoef(*halves)[0, 1]) < 0.006
    assert abs(drawn.var() - 1) < 0.006
    assert abs((drawn**4).mean() - 3) < 0.06
    assert len(np.unique(drawn)) == 1_000_000


@pytest.mark.parametrize("count", [0, 1, 2, 3, 131_073])
def test_any_count_is_served(count):
    drawn = normals(count, SystemEntropy())
    assert drawn.shape == (count,)
    assert np.isfinite(drawn).all()


def test_noise_does_not_repeat_after_global_seeds_are_set():
    seen = set()
    for step in range(10_000):
        if step % 100 == 0:
            torch.manual_seed(42)
            np.random.seed(42)  # noqa: NPY002  # the seed that must not matter
        seen.add(normals(1, SystemEntropy())[0])
    assert len(seen) == 10_000


def test_a_replayed_stream_gives_the_same_noise():
    assert np.array_equal(normals(99, ReplayEntropy(1, "a")), normals(99, ReplayEntropy(1, "a")))
    assert not np.array_equal(normals(99, ReplayEntropy(1, "a")), normals(99, ReplayEntropy(1, "b")))


def test_integer_noise_has_the_deviation_that_the_plan_accounts_for():
    plan: MechanismPlan = plan_counts(COUNTS, cells=200_000, releases=1, quorum=2)
    drawn = integer_noise(plan, SystemEntropy())
    assert drawn.dtype == np.int64
    assert drawn.shape == (200_000,)
    assert drawn.std() == pytest.approx(plan.sigma, rel=0.01)
