"""The engine ray: several machines give what the loop gives, lost workers are made good, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from common.errors import Code, Refusal
from common.privacy.clipped import Clipped
from common.work import Work
from simulations.engines.catalogue import EngineName, engine_of
from simulations.engines.cluster import ClusterSettings
from simulations.engines.engine import Engine
from simulations.engines.ray_engine import RayEngine
from simulations.flower import Runtime
from simulations.ground import Ground
from simulations.world import Finished, simulate
from tests.simulations.engines.ray_machines import Machines, is_worker, left_behind, machines
from tests.simulations.engines.test_engines import SITES, WEIGHTS, close_to, first_turn, world
from tests.worlds import scenario

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def two() -> Iterator[Machines]:
    with machines() as found:
        yield found


@pytest.fixture(scope="module")
def hired(two: Machines) -> Iterator[RayEngine]:
    """An engine whose workers serve most of the tests; they take a while to start."""
    with closing(RayEngine(*world(), ClusterSettings(address=two.address))) as engine:
        _ = engine._workers
        yield engine


def borrowing(hired: RayEngine, work: Work, ground: Ground) -> RayEngine:
    """The engine of another world over the same workers."""
    engine = RayEngine(work, ground, ClusterSettings())
    engine._runtime, engine._found = hired._workers, hired._found
    return engine


def loop(work: Work, ground: Ground) -> Engine:
    return engine_of(EngineName.LOOP, work, ground)


def test_workers_on_two_machines_give_what_the_loop_gives(hired: RayEngine) -> None:
    """Must: keep the order of sites, weigh and clip each, and say where it was computed."""
    work, ground = world()
    turn = first_turn(work)
    right = dict(loop(work, ground).updates(turn, SITES))
    found = list(hired.updates(turn, SITES))
    assert tuple(site for site, _ in found) == SITES
    assert all(close_to(update, right[site]) for site, update in found)
    for clip in (np.inf, 0.1):
        share, wanted = hired.share(turn, SITES, WEIGHTS, clip), loop(work, ground).share(turn, SITES, WEIGHTS, clip)
        assert close_to(share.sum, wanted.sum)
        assert np.allclose(share.norms, wanted.norms, rtol=1e-5)
    assert np.array_equal(hired.counts(turn, SITES), loop(work, ground).counts(turn, SITES))
    assert hired.told == {"engine": "ray", "kernel": "dual", "workers": "2", "machines": "2"}


@pytest.mark.parametrize("mode", ["M1", "M2"])
def test_private_work_is_that_of_the_loop_bit_for_bit(hired: RayEngine, mode: str) -> None:
    work, ground = world(mode)
    turn, engine, right = first_turn(work), borrowing(hired, work, ground), loop(work, ground)
    if mode == "M2":
        pairs = list(zip(engine.gradients(turn, SITES), right.gradients(turn, SITES), strict=True))
        assert all(isinstance(one[1], Clipped) and one[1].record_bound == two[1].record_bound for one, two in pairs)
        assert all(np.array_equal(one[1].total, two[1].total) for one, two in pairs)
    else:
        private = list(zip(engine.privately(turn, SITES), right.privately(turn, SITES), strict=True))
        assert all(one[1] and two[1] and np.array_equal(one[1].value, two[1].value) for one, two in private)
        assert all(one[1] and two[1] and one[1].plan_id == two[1].plan_id for one, two in private)


@pytest.mark.parametrize("sums", ["exact", "masked"])
def test_a_world_comes_to_the_same_model_as_on_the_other_engines(
    hired: RayEngine, sums: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must: let the sites be computed on both machines. Must not: differ from the others by more than rounding."""
    monkeypatch.setattr(RayEngine, "_hired", lambda self: hired._workers)
    asked: list[int] = []
    ask = hired._workers.ask
    monkeypatch.setattr(hired._workers, "ask", lambda frames, *more: asked.append(len(frames)) or ask(frames, *more))
    made = scenario("none", {"world.sums": sums, "job.rounds": 2})
    ended = {name: simulate(made, tmp_path / name, name) for name in EngineName}
    assert ended[EngineName.RAY].told["engine"] == "ray"
    assert asked
    assert max(asked) == 2
    assert_alike(ended[EngineName.RAY], ended[EngineName.LOOP])
    assert_alike(ended[EngineName.RAY], ended[EngineName.PROCESS])


def assert_alike(one: Finished, other: Finished) -> None:
    assert one.state.evaluation is not None
    assert np.allclose(one.state.parameters, other.state.parameters, rtol=1e-4, atol=1e-5)
    assert [row["sites"] for row in one.state.rounds] == [row["sites"] for row in other.state.rounds]


def test_what_a_worker_refuses_is_refused_here(hired: RayEngine) -> None:
    work, _ = world()
    turn = first_turn(work)
    turn.parameters[0] = np.nan
    with pytest.raises(Refusal) as caught:
        hired.counts(turn, SITES)
    assert caught.value.code is Code.UPDATE_INVALID


def test_a_machine_with_other_records_is_refused(hired: RayEngine) -> None:
    work, ground = world()
    engine = borrowing(hired, work, ground)
    engine._records = bytes(32)
    with pytest.raises(Refusal, match="its records") as caught:
        engine.counts(first_turn(work), SITES)
    assert caught.value.code is Code.DATA_INVALID


def test_a_second_use_of_ray_in_one_process_is_refused(hired: RayEngine, two: Machines) -> None:
    with closing(RayEngine(*world(), ClusterSettings(address=two.address))) as engine:
        with pytest.raises(Refusal) as caught:
            engine.counts(first_turn(world()[0]), SITES)
        assert caught.value.code is Code.ALREADY_RUNNING


def test_more_than_a_machine_has_is_refused(hired: RayEngine) -> None:
    with pytest.raises(Refusal, match="2 processors") as caught:
        Runtime({"num_cpus": 2.0, "num_gpus": 0.0})
    assert caught.value.code is Code.CONFIG_INVALID


def test_what_a_lost_machine_and_a_lost_worker_owed_is_computed_again(hired: RayEngine, two: Machines) -> None:
    """Must: come to the sum of the loop each time, with as many workers as are left."""
    work, ground = world()
    turn = first_turn(work)
    wanted = loop(work, ground).share(turn, SITES, WEIGHTS, np.inf)
    for machine, lose in ((two.second, two.second.end), (two.head, lambda: two.head.worker().kill())):
        before = hired._workers
        machine.worker().suspend()  # it will not have answered before it is lost
        timer = threading.Timer(0.3, lose)
        timer.start()
        share = hired.share(turn, SITES, WEIGHTS, np.inf)
        timer.join()
        assert close_to(share.sum, wanted.sum)
        assert hired._workers is not before
        assert hired.told["workers"] == "1"


def test_nothing_is_left_behind_by_a_run_that_was_interrupted(
    hired: RayEngine, two: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must: end all that was started for it, in the middle of a turn too, and put environment and signals back."""
    hired.close()
    monkeypatch.setattr(tempfile, "tempdir", str(two.folder))
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    work, ground = world()
    with closing(RayEngine(work, ground, ClusterSettings(cpus=float(len(os.sched_getaffinity(0)))))) as engine:
        assert engine._workers.seats == 1
        assert {"raylet", "gcs_server", "hushfed"} <= left_behind(two.folder)
        (worker,) = [each for each in psutil.Process().children(recursive=True) if is_worker(each)]
        worker.suspend()
        timer = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident or 0, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            engine.share(first_turn(work), SITES, WEIGHTS, np.inf)
        timer.join()
    assert left_behind(two.folder) == set()
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGTERM) == handler
    assert [each for each in threading.enumerate() if each.name == "flower"] == []
