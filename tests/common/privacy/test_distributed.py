"""Site-level mechanisms: the published table, noise that survives drop-out, and nothing claimed that is not paid."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.privacy.accounting import total_epsilon
from common.privacy.charges import Charge
from common.privacy.distributed import SPAN, SiteMechanism
from common.privacy.renyi import ORDERS, epsilon_of
from common.randomness import ReplayEntropy
from common.secagg.distributed import DistributedCodec
from common.secagg.masks import reduce

PLAIN = {
    "noise": "discrete-gaussian",
    "dimension": 2**20,
    "metrics": 0,
    "metric_share": 0.0,
    "clip": 1.0,
    "bits": 20,
    "sites_max": 100,
    "quorum": 100,
    "colluding": 0,
    "noise_multiplier": 5.0,
}
SMALL = {"dimension": 4000, "sites_max": 10, "quorum": 8, "colluding": 3}


def mechanism_of(**settings) -> SiteMechanism:
    return SiteMechanism(**(PLAIN | settings))


def gaussian(multiplier: float, releases: int, delta: float) -> float:
    event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(multiplier), releases)
    return float(RdpAccountant(ORDERS).compose(event).get_epsilon(delta))


@pytest.mark.parametrize("noise", ["discrete-gaussian", "skellam"])
@pytest.mark.parametrize("sites", [10, 100, 1000])
@pytest.mark.parametrize(
    ("bits", "low", "high"), [(14, 20.2, 20.6), (16, 11.39, 11.42), (18, 10.84, 10.84), (20, 10.8, 10.81)]
)
def test_the_table_of_bits_is_reproduced(noise, sites, bits, low, high):
    """d = 2^20, delta = 1e-5, 100 releases, z = 5: what fewer bits cost. A Gaussian costs 10.80 at whole orders."""
    mechanism = mechanism_of(noise=noise, bits=bits, sites_max=sites, quorum=sites)
    found = epsilon_of(mechanism.curve(100), 1e-5, 0.0)
    assert low <= round(found, 2) <= high
    assert round(gaussian(5.0, 100, 1e-5), 2) == 10.80


@given(
    noise=st.sampled_from(["discrete-gaussian", "skellam"]),
    bits=st.sampled_from([16, 20, 24, 28, 32]),
    dimension=st.sampled_from([10, 1000, 10**5, 10**7]),
    sites=st.integers(2, 1000),
    multiplier=st.floats(0.5, 50.0),
    releases=st.integers(1, 500),
)
def test_no_figure_is_below_the_gaussian_of_the_same_multiplier(noise, bits, dimension, sites, multiplier, releases):
    mechanism = mechanism_of(
        noise=noise, bits=bits, dimension=dimension, sites_max=sites, quorum=sites, noise_multiplier=multiplier
    )
    found = epsilon_of(mechanism.curve(releases), 1e-6, 0.0)
    assert found >= gaussian(multiplier, releases, 1e-6) * (1 - 1e-9)


@pytest.mark.parametrize("noise", ["discrete-gaussian", "skellam"])
def test_the_exact_accountant_of_a_gaussian_is_below_as_well(noise):
    found = mechanism_of(noise=noise, **SMALL).epsilon(20, 1e-5)
    exact = total_epsilon([Charge(mechanism="gaussian", q=1.0, sigma=5.0, steps=20)], 1e-5)
    assert exact < found < 1.15 * exact


@pytest.mark.parametrize("noise", ["discrete-gaussian", "skellam"])
def test_the_fewest_honest_sites_alone_add_all_the_noise_that_is_accounted_for(noise):
    """Must: divide the noise among quorum - colluding sites. Must not: count on sites that may drop out or tell."""
    mechanism = mechanism_of(noise=noise, **SMALL)
    codec = mechanism.codec
    total = codec.ring.zeros()
    for site in range(mechanism.honest):
        total += codec.encode(np.zeros(4000), b"seed", ReplayEntropy(site)).lanes
    noisy = codec.total(codec.open_sum(reduce(codec.ring, total), mechanism.honest), b"seed")
    assert mechanism.honest == 5
    assert noisy.std() == pytest.approx(5.0, rel=0.05)
    assert mechanism.local_deviation == pytest.approx(5.0 / math.sqrt(5))


def test_a_lower_quorum_or_more_colluders_ask_more_noise_of_each_site_not_more_epsilon():
    base = mechanism_of(**SMALL)
    for settings in ({"quorum": 6}, {"colluding": 6}):
        other = mechanism_of(**(SMALL | settings))
        assert other.local_deviation > base.local_deviation
        assert other.epsilon(10, 1e-5) == pytest.approx(base.epsilon(10, 1e-5), rel=0.02)


def test_the_sampler_is_paid_for_at_every_honest_site_and_release(monkeypatch):
    """With a worse sampler the payment shows."""
    mechanism = mechanism_of(**SMALL)
    monkeypatch.setattr(DistributedCodec, "sampler_distance", 1e-10)
    assert mechanism.epsilon(10, 1e-5) == epsilon_of(mechanism.curve(10), 1e-5, 10 * 5 * 1e-10)
    assert mechanism.epsilon(10, 1e-5) > epsilon_of(mechanism.curve(10), 1e-5, 0.0)


def test_a_sum_of_all_sites_fits_the_ring_within_its_span():
    for noise in ("discrete-gaussian", "skellam"):
        for bits in (16, 20):
            mechanism = mechanism_of(noise=noise, bits=bits, sites_max=1000, quorum=500)
            lanes, g = 2**20, mechanism.scale
            spread = (g * 1000) ** 2 / lanes + 250 + 1000 * (g * mechanism.local_deviation) ** 2
            assert SPAN * math.sqrt(spread) <= 2 ** (bits - 1) * (1 + 1e-9)


def test_metrics_are_inside_the_bound_that_the_noise_covers():
    plain, metered = (mechanism_of(**SMALL, metrics=q, metric_share=0.5 * (q > 0)) for q in (0, 4))
    assert metered.bound == pytest.approx(math.sqrt(2))
    assert metered.local_deviation == pytest.approx(math.sqrt(2) * plain.local_deviation)
    assert metered.codec.bound == metered.bound
    assert metered.epsilon(5, 1e-5) == pytest.approx(plain.epsilon(5, 1e-5), rel=0.01)


@pytest.mark.parametrize(
    "settings",
    [
        {"quorum": 3, "colluding": 3},
        {"colluding": -1},
        {"quorum": 101},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"bits": 4, "sites_max": 100},
    ],
)
def test_mechanisms_that_protect_nobody_are_refused(settings):
    with pytest.raises(Refusal, check=lambda error: error.code is Code.JOB_INVALID):
        mechanism_of(**settings)


def test_no_release_is_refused():
    for releases in (0, -1):
        with pytest.raises(Refusal, match="releases"):
            mechanism_of(**SMALL).epsilon(releases, 1e-5)


def test_wide_noise_is_scaled_down_to_what_can_be_drawn():
    for bits in (24, 28, 32):
        for noise in ("discrete-gaussian", "skellam"):
            codec = mechanism_of(noise=noise, bits=bits, **SMALL).codec
            assert codec.sampler_distance < 1e-25
            assert codec.scale * codec.bound <= 2.0**30
