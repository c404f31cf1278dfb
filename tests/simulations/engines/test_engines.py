"""Every engine gives what the loop gives; workers that die, fail or are not heard out leave nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from common.errors import Code, Refusal
from common.parameters import flatten
from common.privacy.clipped import Clipped, PrivateUpdate
from common.work import Work, model_of, work_of
from server.job import prepared
from simulations.engines.catalogue import EngineName, engine_of
from simulations.engines.crew import Crew
from simulations.engines.engine import Engine, Turn
from simulations.engines.process import ProcessEngine, process_engine
from simulations.ground import Ground
from simulations.open_world import population_of
from tests.worlds import scenario

SITES = (4, 1, 3, 2, 5)
WEIGHTS = np.array([1.0, 0.5, 0.25, 1.0, 0.75])
CHANGES = {
    "world.partition.sites": 5,
    "world.partition.minimum": 5,
    "job.training.local_steps": 7,
    "job.training.batch": 5,
    "job.privacy.noise": "replay",
}


def world(mode: str = "none", **more: Any) -> tuple[Work, Ground]:
    local = {"job.training.local_steps": 1} if mode == "M2" else {}
    made = scenario(mode, {**CHANGES, **local, **more})
    ground = Ground(made)
    roster = population_of(made, ground)
    return work_of(prepared(made.job, roster), roster), ground


def first_turn(work: Work) -> Turn:
    return Turn("train", 1, 0, flatten(model_of(work.job)))


Hire = Callable[[Work, Ground], Engine]
ENGINES: dict[str, Hire] = {
    "loop": lambda work, ground: engine_of(EngineName.LOOP, work, ground),
    "one process": lambda work, ground: process_engine(work, ground, 1),
    "two workers": lambda work, ground: process_engine(work, ground, 2),
    "more workers than sites": lambda work, ground: process_engine(work, ground, 7),
}


def close_to(found: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.linalg.norm(found - right) <= 1e-5 * np.linalg.norm(right) + 1e-7)


@pytest.mark.parametrize("name", ENGINES)
def test_updates_and_their_sum_are_those_of_the_loop(name: str) -> None:
    """Must: keep the order of sites, weigh and clip each. Must not: mix up whose update is whose."""
    work, ground = world()
    turn, loop = first_turn(work), ENGINES["loop"](work, ground)
    right = dict(loop.updates(turn, SITES))
    with closing(ENGINES[name](work, ground)) as engine:
        for _ in range(2):
            found = list(engine.updates(turn, SITES))
            assert tuple(site for site, _ in found) == SITES
            assert all(close_to(update, right[site]) for site, update in found)
        for clip in (np.inf, 0.1):
            share, wanted = engine.share(turn, SITES, WEIGHTS, clip), loop.share(turn, SITES, WEIGHTS, clip)
            assert close_to(share.sum, wanted.sum)
            assert np.allclose(share.norms, wanted.norms, rtol=1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_private_work_is_that_of_the_loop_bit_for_bit(name: str) -> None:
    for mode in ("M1", "M2"):
        work, ground = world(mode)
        turn, loop = first_turn(work), ENGINES["loop"](work, ground)
        with closing(ENGINES[name](work, ground)) as engine:
            if mode == "M2":
                pairs = zip(engine.gradients(turn, SITES), loop.gradients(turn, SITES), strict=True)
                found: list[tuple[Any, Any]] = [(one[1], other[1]) for one, other in pairs]
                assert all(isinstance(one, Clipped) and np.array_equal(one.total, two.total) for one, two in found)
            else:
                private = zip(engine.privately(turn, SITES), loop.privately(turn, SITES), strict=True)
                found = [(one[1], other[1]) for one, other in private]
                assert all(
                    isinstance(one, PrivateUpdate) and np.array_equal(one.value, two.value) for one, two in found
                )
            assert np.array_equal(engine.counts(turn, SITES), loop.counts(turn, SITES))


def test_the_kernel_that_was_taken_is_told() -> None:
    work, ground = world()
    with closing(process_engine(work, ground, 2)) as engine:
        engine.share(first_turn(work), SITES, WEIGHTS, np.inf)
        assert engine.told == {"engine": "process", "kernel": "dual", "workers": "2"}


def test_momentum_falls_back_to_the_loop_and_says_why() -> None:
    work, ground = world(**{"job.training.optimizer": "momentum", "job.training.optimizer_settings": {"momentum": 0.9}})
    with closing(process_engine(work, ground, 1)) as engine:
        engine.share(first_turn(work), SITES, WEIGHTS, np.inf)
        assert "not dual: the optimizer momentum keeps more than the parameters" in engine.told["kernel"]


@pytest.fixture
def hired() -> Iterator[tuple[ProcessEngine, Work]]:
    work, ground = world()
    engine = process_engine(work, ground, 2)
    assert isinstance(engine, ProcessEngine)
    with closing(engine):
        engine.share(first_turn(work), SITES, WEIGHTS, np.inf)
        yield engine, work


def pids(engine: ProcessEngine) -> list[int]:
    return [worker.process.pid or 0 for worker in engine._workers]


def test_a_worker_that_was_killed_ends_the_engine_with_a_refusal(hired: tuple[ProcessEngine, Work]) -> None:
    """Must: say so, and leave no other worker behind. Must not: wait for ever."""
    engine, work = hired
    first, second = pids(engine)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(Refusal) as caught:
        engine.share(first_turn(work), SITES, WEIGHTS, np.inf)
    assert caught.value.code is Code.PROCESS_FAILED
    for pid in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_whoever_stops_early_disturbs_nothing(hired: tuple[ProcessEngine, Work]) -> None:
    engine, work = hired
    turn = first_turn(work)
    some = engine.updates(turn, SITES)
    first = next(some)
    some.close()  # type: ignore[attr-defined]  # it is a generator
    again = list(engine.updates(turn, SITES))
    assert np.array_equal(again[0][1], first[1])
    assert len(again) == len(SITES)


def test_what_a_worker_refuses_is_refused_here(hired: tuple[ProcessEngine, Work]) -> None:
    engine, work = hired
    with pytest.raises(Refusal) as caught:
        engine.counts(Turn("evaluate", 1, 0, first_turn(work).parameters * np.float32(np.nan)), SITES)
    assert caught.value.code is Code.UPDATE_INVALID


def test_closing_ends_all_workers(hired: tuple[ProcessEngine, Work]) -> None:
    engine, _ = hired
    before = pids(engine)
    engine.close()
    engine.close()
    for pid in before:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("workers", [0, -1, 65])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers: int) -> None:
    with pytest.raises(Refusal, match="workers") as caught:
        process_engine(*world(), workers)
    assert caught.value.code is Code.CONFIG_INVALID


def test_one_worker_needs_no_other_process() -> None:
    assert isinstance(process_engine(*world(), 1), Crew)
