"""One plan says how to sample, bound, noise and account; settings that cannot live together are refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from common.config import canonical, load, plain
from common.errors import Code, Refusal
from common.privacy.accounting import ONLINE, REPORT, total_epsilon
from common.privacy.plan import MechanismPlan, PrivacySettings, plan_counts, plan_training

M2 = {
    "mode": "M2",
    "unit": "record",
    "epsilon": 3.0,
    "delta": 1e-5,
    "clip": 1.0,
    "sampling_rate": 0.2,
    "spare_rounds": 3,
    "colluding": 1,
    "metric_share": 0.1,
    "loss_bound": 2.0,
    "evaluation_epsilon": 1.0,
}
M1 = {name: value for name, value in M2.items() if name not in ("colluding", "metric_share", "loss_bound")} | {
    "mode": "M1"
}
PLACE = {"rounds": 30, "local_steps": 1, "dimension": 14, "quorum": 4, "sites": 5, "records": 350}


def settings(**changes):
    return load(PrivacySettings, {**M2, **changes}, "privacy")


def trained(chosen=None, **changes):
    return plan_training(chosen or settings(), **{**PLACE, **changes})


def test_the_planned_releases_keep_the_epsilon_and_one_more_does_not():
    plan = trained()
    assert plan.releases == 33
    assert 2.99 < total_epsilon([plan.charge(33)], 1e-5, ONLINE) <= 3.0
    assert total_epsilon([plan.charge(34)], 1e-5, ONLINE) > 3.0
    assert total_epsilon([plan.charge(33)], 1e-5, REPORT) <= 3.0


def test_equal_arguments_give_the_same_plan_and_any_change_another():
    plan_training.cache_clear()
    first = trained()
    plan_training.cache_clear()
    assert trained() == first
    assert trained().plan_id == first.plan_id
    ids = {first.plan_id, trained(rounds=31).plan_id, trained(dimension=15).plan_id, trained(quorum=5).plan_id}
    assert len(ids | {trained(settings(noise="replay")).plan_id}) == 5


def test_a_plan_survives_its_canonical_form():
    import json

    plan = trained()
    assert load(MechanismPlan, json.loads(canonical(plan))) == plan


def test_noise_covers_gradient_metrics_and_rounding():
    plan = trained()
    assert plan.dimension == 16
    assert plan.record_bound == pytest.approx(math.sqrt(1 + 2 * 0.1**2))
    assert plan.sensitivity >= plan.scale * plan.record_bound + math.sqrt(16)
    assert plan.sigma * math.sqrt(plan.honest) == pytest.approx(plan.noise_multiplier * plan.sensitivity)
    assert plan.honest == 3
    assert plan.sum_deviation == plan.sigma / plan.scale


def test_the_scale_is_a_power_of_two_and_the_crowd_fits_the_ring():
    for clip, records in ((1.0, 350), (0.1, 350), (0.3, 10_000), (7.0, 10**6)):
        chosen = settings(clip=clip, delta=1e-7)
        plan = trained(chosen, records=records, sites=100, quorum=50)
        assert math.log2(plan.scale) == int(math.log2(plan.scale))
        largest = 4 * 0.2 * records * plan.record_bound * plan.scale + 8 * plan.sigma * math.sqrt(100)
        assert largest < 2**31


def test_integer_noise_costs_what_the_published_formula_says():
    """Renyi divergence of the distributed discrete Gaussian (Kairouz, Liu, Steinke 2021) against the Gaussian's."""
    plan = trained(settings(sampling_rate=1.0))
    n, d, s = plan.honest, plan.dimension, plan.sigma
    tau = 10 * sum(math.exp(-2 * math.pi**2 * s**2 * k / (k + 1)) for k in range(1, n))
    moved = plan.sensitivity / (math.sqrt(n) * s)
    for order in (2, 8, 32):
        distributed = min(order * moved**2 / 2 + tau * d, order / 2 * (moved + math.sqrt(d) * tau) ** 2)
        assert distributed == pytest.approx(order / (2 * plan.noise_multiplier**2), rel=1e-3)


def test_the_event_is_what_the_charge_is():
    from dp_accounting.pld import PLDAccountant

    plan = trained()
    accountant = PLDAccountant(value_discretization_interval=REPORT)
    accountant.compose(plan.event(33))
    assert accountant.get_epsilon(1e-5) == pytest.approx(total_epsilon([plan.charge(33)], 1e-5), abs=1e-4)


def test_sites_of_mode_m1_rely_on_nobody_else():
    plan = trained(load(PrivacySettings, M1), local_steps=5)
    assert (plan.honest, plan.steps, plan.scale, plan.dimension) == (1, 5, 1.0, 14)
    assert total_epsilon([plan.charge(33 * 5)], 1e-5, ONLINE) <= 3.0
    assert plan_counts(load(PrivacySettings, M1), cells=8, releases=1, quorum=4).honest == 1


def test_mode_none_promises_nothing():
    plan = trained(PrivacySettings(mode="none"))
    assert plan.void
    assert total_epsilon([plan.charge(1)], 1e-5) == math.inf
    assert plan_counts(PrivacySettings(mode="none"), cells=8, releases=1, quorum=2).mechanism == "none"


def test_counts_keep_their_own_epsilon():
    for releases, cells in ((1, 12), (4, 600)):
        plan = plan_counts(settings(), cells=cells, releases=releases, quorum=4)
        assert plan.partition == "holdout"
        assert plan.sensitivity == 1.0
        assert 0.99 < total_epsilon([plan.charge(releases)], 1e-5, ONLINE) <= 1.0


def test_counts_with_a_large_epsilon_cost_what_their_shared_noise_really_hides():
    """Little noise is shared by many sites: their sum is no Gaussian any more, and is accounted for as it is."""
    plan = plan_counts(settings(evaluation_epsilon=50.0), cells=100, releases=1, quorum=30)
    assert total_epsilon([plan.charge(1)], 1e-5, ONLINE) <= 50.0
    assert plan.charge(1).terms == plan.honest == 29


@pytest.mark.parametrize(
    ("changes", "place", "why"),
    [
        ({}, {"local_steps": 2}, "local_steps"),
        ({"colluding": 4}, {}, "no honest site"),
        ({"sampling_rate": 0.001}, {}, "on average"),
        ({"delta": 0.005}, {}, "publish one"),
        ({"delta": 1e-9}, {"dimension": 10**8, "records": 10**8}, "fit the ring"),
    ],
)
def test_settings_that_cannot_live_together_are_refused(changes, place, why):
    with pytest.raises(Refusal, match=why) as refused:
        trained(settings(**changes), **place)
    assert refused.value.code is Code.JOB_INVALID


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("epsilon", "delta", "clip", "sampling_rate", "loss_bound", "evaluation_epsilon")
        for value in (0.0, -1.0, math.nan, math.inf, True, "1")
    ]
    + [("sampling_rate", 1.01), ("delta", 0.5), ("delta", 1.0), ("spare_rounds", -1), ("spare_rounds", 1.5)]
    + [("colluding", -1), ("metric_share", -0.1), ("metric_share", 1.5), ("mode", "M9"), ("unit", "person")]
    + [("noise", "secret"), ("noise", None)],
)
def test_a_setting_outside_its_range_is_refused(name, value):
    with pytest.raises(Refusal) as refused:
        settings(**{name: value})
    assert refused.value.code is Code.CONFIG_INVALID


@pytest.mark.parametrize("name", [name for name in M2 if name not in ("mode", "noise")])
def test_no_setting_that_touches_privacy_has_a_default(name):
    with pytest.raises(Refusal, match="missing"):
        load(PrivacySettings, {key: value for key, value in M2.items() if key != name})


@pytest.mark.parametrize(
    "table",
    [
        {"mode": "none", "epsilon": 3.0},
        {"mode": "none", "clip": 1.0},
        {**M1, "colluding": 1},
        {**M1, "metric_share": 0.1},
        {**M2, "metric_share": 0.0},
    ],
)
def test_a_setting_that_nothing_would_use_is_refused(table):
    with pytest.raises(Refusal, match="Remove"):
        load(PrivacySettings, table)


def test_live_metrics_can_be_switched_off():
    plan = trained(load(PrivacySettings, {**M2, "metric_share": 0.0} | {"loss_bound": None}))
    assert (plan.dimension, plan.lane_bound, plan.record_bound) == (14, 0.0, 1.0)


@examples(max_examples=5, deadline=None)
@given(st.floats(0.2, 5.0), st.floats(0.05, 1.0), st.integers(1, 60), st.integers(2, 20))
def test_every_plan_keeps_its_promise(epsilon, rate, rounds, quorum):
    plan = trained(settings(epsilon=epsilon, sampling_rate=rate), rounds=rounds, quorum=quorum, sites=20)
    assert total_epsilon([plan.charge(plan.releases)], plan.delta, ONLINE) <= epsilon
    assert plain(replace(plan)) == plain(plan)
