"""A site as one bounded vector, and what its guard lets out of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client.guard import Guard, Inner
from client.limits import Limit
from client.site_level import bounded, turned
from common.errors import Code, Refusal
from common.identity import Signer
from common.privacy.clipped import Clipped, PrivateUpdate
from common.privacy.entries import Facts, Kind
from common.privacy.ledger import Owner, open_ledger
from common.privacy.settings import LocalPrivacy
from common.privacy.site_plan import plan_local, plan_site
from common.randomness import ReplayEntropy, SystemEntropy
from common.secagg.rounding import round_within
from common.work import turned_codec
from tests.common.privacy.test_site_plan import LOCAL, settings

PLACE = {"rounds": 6, "dimension": 4, "quorum": 3, "sites": 4}
PLANS = {mode: plan_site(settings(mode), **PLACE) for mode in ("M3", "M4", "M5")}
ADAPTIVE = plan_site(settings("M4", quantile=0.5), **PLACE)
RINGED = plan_site(settings("M4", mechanism="skellam"), **PLACE, bits=16)
LAYERED = plan_site(settings("M4", local=LOCAL), **PLACE)
INNER = plan_local(
    LocalPrivacy(**LOCAL),
    delta=1e-4,
    noise="system",
    local_steps=2,
    releases=LAYERED.releases,
    dimension=4,
    records=400,
)
VECTOR = bounded(np.array([3.0, 0.0, -4.0, 0.0]), PLANS["M4"], 0.0)


def facts(round_number=1, run="aa"):
    return Facts(run=run, round=round_number, order="bb")


@pytest.fixture
def guard(tmp_path):
    with open_ledger(tmp_path / "ledger.sqlite", Owner(1, "ab" * 32), Signer.from_seed(bytes(32))) as ledger:
        yield Guard(ledger, Limit(8.0, 1e-4))


@given(arrays(np.float64, 4, elements=st.floats(width=64, allow_nan=True, allow_infinity=True)))
def test_whatever_training_ended_with_adds_at_most_the_bound(change):
    for plan, clip in ((PLANS["M3"], 0.0), (ADAPTIVE, 1e-3), (ADAPTIVE, 1e9)):
        made = bounded(change, plan, clip)
        assert made.total.shape == (plan.dimension,)
        assert np.linalg.norm(made.total) <= plan.record_bound * (1 + 1e-9)


def test_a_short_update_passes_over_the_clip_and_a_long_one_keeps_its_direction():
    assert bounded(np.array([1.0, 0, 0, 0]), PLANS["M3"], 0.0).total.tolist() == [0.5, 0, 0, 0]
    assert np.allclose(VECTOR.total, [0.6, 0, -0.8, 0])


def test_the_last_lane_says_whether_the_update_was_within_the_clip():
    within, beyond = (bounded(np.array([1.0, 0, 0, 0]), ADAPTIVE, clip).total[-1] for clip in (1.5, 0.5))
    assert within == -beyond == ADAPTIVE.lane_bound


@pytest.mark.parametrize(("plan", "clip"), [(ADAPTIVE, 0.0), (ADAPTIVE, math.inf), (PLANS["M3"], 1.0)])
def test_a_clip_that_the_job_does_not_ask_for_is_refused(plan, clip):
    with pytest.raises(Refusal) as refused:
        bounded(np.zeros(4), plan, clip)
    assert refused.value.code is Code.MESSAGE_INVALID


@pytest.mark.parametrize("mode", ["M3", "M5"])
def test_where_the_coordinator_adds_the_noise_the_site_sends_its_integers(guard, mode):
    plan = PLANS[mode]
    release = guard.release_site(guard.reserve(plan, facts()), VECTOR, SystemEntropy())
    assert np.array_equal(release.lanes, np.rint(VECTOR.total * plan.scale))
    assert release.spent.site == pytest.approx(release.spent.nominal["train"])


def test_in_mode_m4_the_sites_own_noise_is_in_it(guard):
    plan = plan_site(settings("M4"), **{**PLACE, "dimension": 20_000})
    vector = Clipped(np.zeros(20_000), 1.0)
    release = guard.release_site(guard.reserve(plan, facts()), vector, SystemEntropy())
    assert release.lanes.std() == pytest.approx(plan.sigma, rel=0.03)
    assert math.sqrt(plan.honest) * plan.sigma == pytest.approx(plan.noise_multiplier * plan.sensitivity)


@pytest.mark.parametrize("noise", ["discrete-gaussian", "skellam"])
@pytest.mark.parametrize("bits", [16, 20])
def test_in_a_ring_of_few_bits_a_site_releases_what_the_codec_of_its_plan_makes(guard, bits, noise):
    """Must: rotate, round within the norm, and noise as one stream says. Must not: charge another plan than that."""
    plan = plan_site(settings("M4", mechanism=noise), **{**PLACE, "dimension": 100}, bits=bits)
    change = np.random.default_rng(1).normal(size=100)
    vector = turned(bounded(change, plan, 0.0), plan, b"seed")
    replayed = replace(plan, noise="replay")
    release = guard.release_site(guard.reserve(replayed, facts()), vector, ReplayEntropy(1, "noise"))
    codec = turned_codec(plan, 4)
    expected = codec.encode(change / plan.clip, b"seed", ReplayEntropy(1, "noise"))
    assert np.array_equal(codec.framed(release.lanes).lanes, expected.lanes)
    bare = round_within(vector.total * plan.scale, plan.sensitivity, ReplayEntropy(1, "noise"))
    assert np.linalg.norm(bare) <= plan.sensitivity
    assert release.lanes.std() == pytest.approx(math.hypot(plan.sigma, plan.scale / math.sqrt(plan.lanes)), rel=0.3)


@given(arrays(np.float64, 4, elements=st.floats(width=64, allow_nan=True, allow_infinity=True)), st.binary(max_size=8))
def test_whatever_training_ended_with_is_within_the_norm_once_it_is_rotated_and_rounded(change, seed):
    plan = RINGED
    vector = turned(bounded(change, plan, 0.0), plan, seed)
    made = round_within(vector.total * plan.scale, plan.sensitivity, ReplayEntropy(2))
    assert sum(int(each) ** 2 for each in made) <= plan.sensitivity**2


def test_what_is_longer_than_its_bound_says_is_not_released_in_a_ring_either(guard):
    for vector in (Clipped(np.full(4, 0.9), 1.0), Clipped(VECTOR.total, 2.0), Clipped(np.zeros(5), 1.0)):
        with pytest.raises(Refusal):
            guard.release_site(guard.reserve(RINGED, facts()), vector, SystemEntropy())


def test_a_release_needs_the_unit_the_noise_and_the_bound_of_its_plan(guard):
    plan = PLANS["M4"]
    attempts = [
        (guard.release_site, (VECTOR, ReplayEntropy(1, "noise"))),
        (guard.release_site, (Clipped(VECTOR.total * 2, 2.0), SystemEntropy())),
        (guard.release_sum, (VECTOR, SystemEntropy())),
        (guard.release_plain, (VECTOR.total, 1.0)),
    ]
    for act, arguments in attempts:
        with pytest.raises(Refusal) as refused:
            act(guard.reserve(plan, facts()), *arguments)
        assert refused.value.code is Code.POLICY_RELEASE


def test_a_layered_release_settles_both_charges_and_neither_layer_is_left_out(guard):
    def charges():
        return guard.reserve(INNER, facts()), guard.reserve(LAYERED, facts())

    inner, outer = charges()
    update = PrivateUpdate(np.zeros(4), INNER.plan_id, 2)
    release = guard.release_site(outer, VECTOR, SystemEntropy(), Inner(inner, update))
    assert [entry.kind for entry in guard._ledger.entries].count(Kind.SETTLE) == 2
    assert release.spent.site is not None
    assert release.spent.nominal["train"] != release.spent.site
    inner, outer = charges()
    for wrong in (None, Inner(inner, PrivateUpdate(np.zeros(4), "ab", 2)), Inner(inner, replace(update, steps=3))):
        with pytest.raises(Refusal) as refused:
            guard.release_site(outer, VECTOR, SystemEntropy(), wrong)
        assert refused.value.code is Code.POLICY_RELEASE


def test_one_release_that_bounds_records_alone_ends_the_claim_for_the_site(guard):
    guard.reserve(PLANS["M4"], facts())
    assert guard.spent.site is not None
    guard.reserve(replace(INNER, layered=False), facts(2))
    assert guard.spent.site is None


def test_a_site_holds_the_coordinator_to_its_turns(guard):
    plan = PLANS["M5"]
    guard.refuse_early(plan, "aa", 5)
    guard.reserve(plan, facts(5))
    guard.refuse_early(plan, "aa", 5)  # the same turn, repeated
    guard.refuse_early(plan, "aa", 9)
    guard.refuse_early(plan, "bb", 6)  # noise of another run
    guard.refuse_early(PLANS["M3"], "aa", 6)
    for early in (6, 8, 4, 2):
        with pytest.raises(Refusal) as refused:
            guard.refuse_early(plan, "aa", early)
        assert refused.value.code is Code.TURN_TOO_EARLY
