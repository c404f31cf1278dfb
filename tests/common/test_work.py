"""Work: what coordinator and sites derive from the same job, each for itself."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import Refusal
from common.job import job_from_bytes
from common.orders import Task
from common.parameters import flatten
from common.privacy.plan import LIVE_LANES
from common.secagg.codec import IntegerCodec, RangeCodec, Sum
from common.secagg.manifest import Manifest, SiteEntry
from common.work import Work, count_shape, counts_noise_sd, metrics_of, model_of, update_of, work_of
from tests.secagg_federation import RULES, signer
from tests.worlds import scenario

SIZES = {1: 100, 2: 200, 3: 300}


def manifest() -> Manifest:
    sites = tuple(
        SiteEntry(
            id=number,
            name=f"clinic-{number}",
            org=f"org-{number}",
            identity=signer(number).public,
            node=f"ecdsa AAAA{number}",
            nominal_records=size,
        )
        for number, size in SIZES.items()
    )
    return Manifest(
        federation="test", version=1, coordinator=signer("c").public, sites=sites, unmaskers=(1, 2, 3), rules=RULES
    )


def summed(lanes: NDArray[np.int64]) -> Sum:
    return Sum(2, lanes, np.zeros(0, np.int64))


class Place(NamedTuple):
    """What a sum is about."""

    run: bytes = bytes(16)
    task: Task = "train"
    round: int = 1
    attempt: int = 0
    clip: float = 0.0


@pytest.fixture(scope="module", params=["M2", "M1", "none"])
def work(request: pytest.FixtureRequest) -> Work:
    return work_of(scenario(request.param).job, manifest())


def test_two_parties_derive_the_same_from_the_same_bytes(work: Work) -> None:
    other = work_of(job_from_bytes(work.job.to_bytes()), manifest())
    assert other == work
    assert np.array_equal(flatten(model_of(work.job)), flatten(model_of(other.job)))
    for task in ("train", "evaluate"):
        assert work.plan(task).plan_id == other.plan(task).plan_id
        assert work.codec(task) == other.codec(task)
        about, ones = Place(task=task), np.ones(work.layout.size, np.float32)
        assert work.binding(about, ones) == other.binding(about, ones)


def test_each_task_reads_its_own_records(work: Work) -> None:
    assert work.plan("train").partition == "train"
    assert work.plan("evaluate").partition == "holdout"
    assert work.plan("train").releases >= work.job.rounds
    assert work.codec("evaluate").dimension == work.plan("evaluate").dimension == count_shape(work.job).lanes


def test_the_binding_differs_with_everything_that_it_names(work: Work) -> None:
    flat = np.ones(work.layout.size, np.float32)
    moved = flat.copy()
    moved[0] = np.nextafter(flat[0], np.float32(2))
    other = replace(work, job=replace(work.job, seed=work.job.seed + 1))
    bindings = {
        work.binding(Place(), flat),
        work.binding(Place(run=b"another run of i"), flat),
        work.binding(Place(task="evaluate"), flat),
        work.binding(Place(round=2), flat),
        work.binding(Place(attempt=1), flat),
        work.binding(Place(), moved),
        work.binding(Place(clip=0.5), flat),
        work.binding(Place(), flat, 1),
        other.binding(Place(), flat),
    }
    assert len(bindings) == 9


def test_spare_attempts_are_those_of_the_job_and_at_most_one_for_counts(work: Work) -> None:
    assert work.spare("train") == (work.job.rounds if work.job.privacy.mode == "none" else 2)
    assert work.spare("evaluate") == 1


def test_in_mode_m2_the_update_is_a_step_along_the_sum_over_public_sizes() -> None:
    work = work_of(scenario("M2").job, manifest())
    plan, size = work.training, work.layout.size
    assert isinstance(work.codec("train"), IntegerCodec)
    gradient = np.arange(size, dtype=np.int64)
    lanes = np.concatenate([gradient * int(plan.scale), np.zeros(LIVE_LANES, np.int64)])
    update = update_of(work, summed(lanes), (1, 3))
    assert np.allclose(update, -work.job.training.learning_rate * gradient / 400)


def test_live_metrics_are_means_over_public_sizes_and_held_to_their_range() -> None:
    work = work_of(scenario("M2").job, manifest())
    plan = work.training
    unit = plan.scale * plan.lane_bound

    def told(loss: float, correct: float) -> tuple[float | None, float | None]:
        lanes = np.zeros(work.layout.size + LIVE_LANES, np.int64)
        lanes[-LIVE_LANES:] = round(loss / plan.loss_bound * unit), round(correct * unit)
        return metrics_of(work, summed(lanes), (1, 3))

    assert told(200.0, 300.0) == pytest.approx((0.5, 0.75), rel=1e-3)
    assert told(-50.0, 500.0) == (0.0, 1.0)
    assert metrics_of(work_of(scenario("none").job, manifest()), summed(np.zeros(4, np.int64)), (1,)) == (None, None)


def test_in_range_mode_the_update_is_the_mean_weighted_by_public_sizes() -> None:
    work = work_of(scenario("none").job, manifest())
    codec = work.codec("train")
    assert isinstance(codec, RangeCodec)
    assert codec.weight_cap == 300.0
    assert work.nominal_of((1, 3)) == 400
    with pytest.raises(Refusal):
        work.nominal_of((9,))


def test_the_noise_of_counts_grows_with_the_sites_and_is_none_without_privacy() -> None:
    noisy, plain = (work_of(scenario(mode).job, manifest()) for mode in ("M2", "none"))
    assert counts_noise_sd(noisy, 4) == pytest.approx(2 * counts_noise_sd(noisy, 1))
    assert counts_noise_sd(plain, 3) == 0.0
