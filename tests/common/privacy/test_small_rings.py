"""Plans of mode M4 in a ring of few bits: rounding, sampler and wrapping are in the plan, and epsilon is kept."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.privacy.accounting import ONLINE, total_epsilon
from common.privacy.charges import Charge
from common.privacy.claims import promise
from common.privacy.distributed import SPAN, SiteMechanism
from common.privacy.mechanism import SAMPLER, MechanismPlan
from common.privacy.renyi import ORDERS, divergence, epsilon_of
from common.privacy.site_plan import plan_site
from common.privacy.spending import spending
from common.work import turned_codec
from tests.common.privacy.test_site_plan import settings

PLACE = {"rounds": 10, "dimension": 650, "quorum": 10, "sites": 12}
NOISES = ("discrete-gaussian", "skellam")


def planned(bits: int, noise: str, *, place: dict | None = None, **asked) -> MechanismPlan:
    return plan_site(settings("M4", mechanism=noise, **asked), **(place or PLACE), bits=bits)


def deviation(plan: MechanismPlan) -> float:
    """Of the noise that counts, in clips."""
    return plan.sum_deviation * math.sqrt(plan.honest)


def by_orders(plan: MechanismPlan, releases: int, delta: float) -> float:
    charge = plan.charge(1)
    curve = releases * np.array([divergence(charge, order) for order in ORDERS])
    return epsilon_of(curve, delta, releases * charge.distance)


@pytest.mark.parametrize("bits", [16, 20, 32])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("quantile", [None, 0.5])
def test_the_planned_releases_keep_the_epsilon_and_one_more_does_not(bits, noise, quantile):
    plan = planned(bits, noise, quantile=quantile)
    assert (plan.bits, plan.mechanism, plan.honest) == (bits, noise, 9)
    assert total_epsilon([plan.charge(plan.releases)], 1e-4, ONLINE) <= 8.0
    assert total_epsilon([plan.charge(plan.releases + 1)], 1e-4, ONLINE) > 8.0


@pytest.mark.parametrize("sites", [10, 100, 1000])
@pytest.mark.parametrize(("bits", "epsilon"), [(16, 11.40), (20, 10.805)])
def test_a_job_of_the_table_of_bits_is_given_the_noise_of_the_table(sites, bits, epsilon):
    """d = 2^20, delta = 1e-5, 100 releases: the epsilon of the table asks for its z = 5, in clips before rounding."""
    place = {"rounds": 98, "dimension": 2**20, "quorum": sites, "sites": sites}
    plan = planned(bits, "skellam", place=place, colluding=0, epsilon=epsilon, delta=1e-5)
    assert plan.releases == 100
    assert deviation(plan) == pytest.approx(5.0, rel=2e-3)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("bits", [16, 20, 24])
def test_what_it_costs_is_what_the_mechanism_of_its_scale_and_noise_costs(noise, bits):
    """Must: count rounding in the norm, as theorem 1 does. Must not: count the norm before rounding."""
    plan = planned(bits, noise)
    mechanism = SiteMechanism(
        noise=noise, dimension=650, metrics=0, metric_share=0.0, clip=1.0, bits=bits, sites_max=12, quorum=9,
        colluding=0, noise_multiplier=plan.noise_multiplier * plan.sensitivity / plan.scale,
    )  # fmt: skip
    assert mechanism.scale == pytest.approx(plan.scale)
    assert plan.sensitivity == pytest.approx(mechanism.codec.norm)
    assert plan.sensitivity > plan.scale
    assert plan.sigma == pytest.approx(mechanism.codec.sigma)
    found = [divergence(plan.charge(1), order) for order in ORDERS]
    np.testing.assert_allclose(found, mechanism.curve(), rtol=1e-9)


@pytest.mark.parametrize("bits", [16, 20, 24, 32])
def test_gaussian_figures_count_for_discrete_gaussians_where_they_are_smaller(bits):
    """Must: state no more than either accounting. Must not: state less than the Gaussian of the same multiplier."""
    plan, skellam = planned(bits, "discrete-gaussian"), planned(bits, "skellam")
    stated = total_epsilon([plan.charge(12)], 1e-4)
    ideal = Charge(mechanism="gaussian", q=1.0, sigma=plan.noise_multiplier, steps=12)
    close = plan.charge(12).as_gaussian()
    assert close is not None
    assert close.divergence > 0
    assert stated == min(by_orders(plan, 12, 1e-4), total_epsilon([close], 1e-4))
    assert stated >= total_epsilon([ideal], 1e-4)
    assert total_epsilon([skellam.charge(12)], 1e-4) == by_orders(skellam, 12, 1e-4)
    assert deviation(plan) <= deviation(skellam)


def test_twenty_bits_cost_next_to_nothing_and_sixteen_a_little():
    wide = deviation(plan_site(settings("M4"), **PLACE))
    costs = {bits: deviation(planned(bits, "discrete-gaussian")) / wide for bits in (16, 20, 24, 32)}
    assert 1.02 < costs[16] < 1.1
    assert all(0.99 < costs[bits] < 1.005 for bits in (20, 24, 32))


@pytest.mark.parametrize(("bits", "noise"), [(16, "skellam"), (16, "discrete-gaussian"), (32, "discrete-gaussian")])
def test_the_sampler_is_no_further_from_its_ideal_than_what_is_paid_from_delta(bits, noise):
    plan = planned(bits, noise)
    assert turned_codec(plan, 12).sampler_distance <= plan.lanes * SAMPLER
    assert plan.charge(3).distance == plan.lanes * plan.honest * SAMPLER


@examples(max_examples=15, deadline=None)
@example(bits=20, noise="skellam", dimension=3, sites=4, epsilon=12.2734375)  # as coarse as Skellam noise can be drawn
@given(
    bits=st.sampled_from([16, 20, 24]),
    noise=st.sampled_from(NOISES),
    dimension=st.integers(1, 100_000),
    sites=st.integers(4, 300),
    epsilon=st.floats(1.0, 20.0),
)
def test_whatever_is_planned_keeps_its_epsilon_fits_its_ring_and_can_be_drawn(bits, noise, dimension, sites, epsilon):
    place = {"rounds": 5, "dimension": dimension, "quorum": max(3, sites // 2), "sites": sites}
    plan = None
    with suppress(Refusal):
        plan = planned(bits, noise, place=place, epsilon=epsilon)
    if plan is None:
        assert bits == 16
        return
    assert total_epsilon([plan.charge(plan.releases)], 1e-4, ONLINE) <= epsilon
    spread = (plan.scale * sites) ** 2 / plan.lanes + sites / 4 + sites * plan.sigma**2
    assert SPAN * math.sqrt(spread) <= 2 ** (bits - 1) * (1 + 1e-9)
    codec = turned_codec(plan, sites)
    assert codec.norm == plan.sensitivity
    assert codec.sigma < (2**15 if noise == "skellam" else 2**30)


def test_a_ring_without_noise_for_it_and_noise_without_a_ring_are_refused():
    for mode, extra, bits in (("M4", {}, 20), ("M4", {"mechanism": "skellam"}, None), ("M3", {}, 20), ("M5", {}, 20)):
        with pytest.raises(Refusal, check=lambda error: error.code is Code.JOB_INVALID):
            plan_site(settings(mode, **extra), **PLACE, bits=bits)
    for mode in ("M3", "M5"):
        with pytest.raises(Refusal, match=r"privacy\.mechanism is set"):
            settings(mode, mechanism="skellam")
    with pytest.raises(Refusal, match="mechanism"):
        settings("M4", mechanism="gaussian")


def test_a_ring_in_which_rounding_alone_costs_more_than_epsilon_is_refused():
    place = {"rounds": 98, "dimension": 10**6, "quorum": 80, "sites": 100}
    with pytest.raises(Refusal, match="rounding to so few bits", check=lambda error: error.code is Code.JOB_INVALID):
        planned(16, "discrete-gaussian", place=place, epsilon=2.0, delta=1e-5)


def test_jobs_with_different_rings_add_up_and_every_ring_is_named_in_the_claim():
    first, second = planned(20, "discrete-gaussian"), planned(16, "skellam")
    both = spending([(first, 12), (second, 12)], 1e-4)
    alone = [spending([(plan, 12)], 1e-4).site for plan in (first, second)]
    assert max(alone) < both.site < sum(alone)
    assert first.plan_id != second.plan_id != replace(second, bits=20).plan_id
    told = " ".join(promise("a", [(first, 12), (second, 12)], 1e-4).sentences())
    assert "for discrete-gaussian noise in 20 bits, skellam noise in 16 bits Rényi divergences" in told
    assert "Rényi" not in " ".join(promise("a", [(plan_site(settings("M4"), **PLACE), 12)], 1e-4).sentences())
