"""Rounds: attempts within the spare ones, charges kept whatever happens, and strategies that learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import Code, Refusal
from common.messages import AnyOrder, UnmaskOrder, WorkOrder
from common.parameters import flatten
from common.work import model_of
from server.aggregation import Aggregator
from server.checkpoints import State
from server.own_ledger import OwnLedger
from server.rounds import REMEMBERED, Table, _smoothed, evaluate, play
from server.strategies.catalogue import strategy
from simulations.backstage import backstage_of
from simulations.world import simulate
from simulations.yardsticks import measure
from tests.worlds import RUN, Desk, Lines, close, desk_of, questions_of, scenario, under

KEYS = {
    "round",
    "loss",
    "accuracy",
    "noisy_loss",
    "noisy_accuracy",
    "sites",
    "refusals",
    "seconds",
    "elapsed",
    "epsilon",
    "bytes",
}


class Play:
    """Rounds over lines that a test may cut; what was saved on the way is in `saved`."""

    def __init__(self, desk: Desk):
        self.lines, self.saved, self.begun = Lines(desk), list[State](), list[str]()
        job = desk.work.job
        aggregator = Aggregator(questions_of(desk, self.lines), desk.work, RUN)
        chosen = strategy(job.aggregation.strategy, **job.aggregation.settings)
        self.table = Table(
            job,
            desk.work,
            chosen,
            aggregator,
            self.lines.present,
            self.begun.append,
            self.saved.append,
            OwnLedger(None, bytes(16)),
        )
        parameters = flatten(model_of(job))
        self.state = State(parameters=parameters, memory=dict(chosen.init(parameters.size)))


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    desk = desk_of(scenario("M2"), tmp_path / "world")
    yield Play(desk)
    close(desk)


def losing_attempts(count: int, kind: type[AnyOrder] = WorkOrder, task: str = "train") -> Callable[..., bytes | None]:
    """Lines that lose all answers to the first `count` attempts of a task, after the sites have worked."""
    attempts: set[int] = set()

    def line(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        data = answer()
        if isinstance(order, WorkOrder) and order.task == task:
            attempts.add(order.attempt)
        lost = isinstance(order, kind) and getattr(order, "task", "") == task and len(attempts) <= count
        return None if lost and site != 1 else data

    return line


def test_a_round_gives_a_model_and_a_row(stage: Play) -> None:
    state = play(stage.table, stage.state)
    assert state.parameters.dtype == np.float32
    assert not np.array_equal(state.parameters, stage.state.parameters)
    (row,) = state.rounds
    assert set(row) == KEYS
    assert row["round"] == 1
    assert row["sites"] == ["clinic-a", "clinic-b", "clinic-c"]
    assert set(row["epsilon"]) == set(row["sites"])
    assert all(0 < value < 8 for value in row["epsilon"].values())
    assert set(state.heads) == {1, 2, 3}
    assert stage.state.rounds == ()  # the state before is as it was


def test_the_same_state_and_noise_give_the_same_round(tmp_path: Path) -> None:
    models = []
    for name in ("one", "two"):
        desk = desk_of(scenario("M2"), tmp_path / name)
        made = Play(desk)
        models.append(play(made.table, made.state).parameters.tobytes())
        close(desk)
    assert models[0] == models[1]


def test_a_failed_attempt_is_repeated_and_its_charges_are_saved_before(stage: Play) -> None:
    stage.lines.line = losing_attempts(2)
    state = play(stage.table, stage.state)
    assert state.spent == {"train": 2}
    assert len(state.rounds) == 1
    assert [saved.spent["train"] for saved in stage.saved] == [1, 2]
    assert stage.saved[0].epsilon[1] > 0
    assert np.array_equal(stage.saved[-1].parameters, stage.state.parameters)
    refusals = state.rounds[0]["refusals"]
    assert {"site": "clinic-b", "code": "SITE_UNREACHABLE"} in refusals


def test_no_attempt_is_made_beyond_the_spare_ones(stage: Play) -> None:
    """Two spare attempts are in the budget: after the third failure the run ends, and says why."""
    stage.lines.line = losing_attempts(9)
    said = "the last failure was E_TOO_FEW; failed attempts of the run: 3, where its budget affords 2"
    with pytest.raises(Refusal, match=said) as refused:
        play(stage.table, stage.state)
    assert refused.value.code is Code.RUN_FAILED
    assert [saved.spent["train"] for saved in stage.saved] == [1, 2, 3]


def test_spare_attempts_are_those_of_the_run_and_not_of_a_round(stage: Play) -> None:
    stage.lines.line = losing_attempts(2)
    state = play(stage.table, stage.state)
    stage.lines.line = losing_attempts(1)
    with pytest.raises(Refusal):
        play(stage.table, state)
    assert stage.saved[-1].rounds == state.rounds  # the last whole round is kept


def test_a_run_without_enough_sites_ends(stage: Play) -> None:
    stage.lines.away = frozenset({2, 3})
    with pytest.raises(Refusal, match="E_TOO_FEW") as refused:
        play(stage.table, stage.state)
    assert refused.value.code is Code.RUN_FAILED


def test_a_run_that_its_sites_refuse_ends_with_what_they_said(stage: Play) -> None:
    """Must: name each of them with its code. Must not: only say that too few answered."""
    for site in (2, 3):
        session = stage.lines.desk.sessions[site]
        rules = replace(session._policy.now.privacy, max_epsilon=0.5)
        session._holdings._policy = under(replace(session._policy.now, privacy=rules))
    with pytest.raises(Refusal, match="sites said: clinic-b BUDGET_EXHAUSTED, clinic-c BUDGET_EXHAUSTED") as refused:
        play(stage.table, stage.state)
    assert "hushfed site explain" in refused.value.do


def test_a_site_that_refuses_for_good_is_not_asked_again(stage: Play) -> None:
    session = stage.lines.desk.sessions[3]
    policy = session._policy.now
    session._policy = under(replace(policy, tasks=replace(policy.tasks, allow=())))
    state = play(stage.table, stage.state)
    assert state.excluded == {3: "POLICY_TASK"}
    asked: list[int] = []

    def noting(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes:
        asked.append(site)
        return answer()

    stage.lines.line = noting
    state = play(stage.table, state)
    assert 3 not in asked
    assert state.rounds[-1]["sites"] == ["clinic-a", "clinic-b"]


def test_counts_follow_a_round_and_belong_to_its_row(stage: Play) -> None:
    before = play(stage.table, stage.state)
    state = evaluate(stage.table, before)
    assert state.evaluated == 1
    assert state.evaluation_failure is None
    assert np.array_equal(state.parameters, before.parameters)
    found = state.evaluation or {}
    assert found["round"] == 1
    assert found["sites"] == ["clinic-a", "clinic-b", "clinic-c"]
    assert np.array(found["counts"]).shape == (len(found["cells"]), found["classes"], found["bins"])
    assert found["noise_sd"] > 0
    assert 0 <= found["accuracy"] <= 1
    assert state.rounds[-1]["loss"] == before.rounds[-1]["loss"]
    assert set(state.rounds[-1]) == KEYS


def test_counts_that_cannot_be_had_leave_the_model_and_what_they_cost(stage: Play) -> None:
    before = play(stage.table, stage.state)
    stage.lines.line = losing_attempts(9, task="evaluate")
    state = evaluate(stage.table, before)
    assert state.evaluated == 1
    assert state.evaluation is None
    assert state.evaluation_failure == "E_TOO_FEW"
    assert state.spent == {"evaluate": 2}
    assert state.heads[1] != before.heads[1]
    assert np.array_equal(state.parameters, before.parameters)


def test_a_lost_unmasking_site_costs_one_attempt(stage: Play) -> None:
    stage.lines.line = losing_attempts(1, kind=UnmaskOrder)
    state = play(stage.table, stage.state)
    assert state.spent["train"] in (1, 2)
    assert len(state.rounds) == 1


ROUNDS = 8
LEARNING: list[tuple[str, str, dict[str, Any]]] = [
    ("none", "fedavg", {}),
    ("none", "fedsgd", {}),
    ("none", "fedprox", {"pull": 0.1}),
    ("none", "fedadam", {"rate": 0.1}),
    ("M2", "fedsgd", {}),
    ("M2", "fedadam", {"rate": 0.1}),
    ("M1", "fedavg", {}),
    ("M1", "fedprox", {"pull": 0.1}),
]


@pytest.mark.parametrize(("mode", "name", "settings"), LEARNING, ids=[f"{mode}-{name}" for mode, name, _ in LEARNING])
def test_every_strategy_learns_in_every_mode(mode: str, name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """Exact accuracy on held-out records: must rise above what the initial model has. 0.52 say the commoner class."""
    changes: dict[str, Any] = {
        "job.rounds": ROUNDS,
        "job.aggregation.strategy": name,
        "job.aggregation.settings": settings,
        "job.training.learning_rate": {"M2": 4.0, "M1": 1.0, "none": 1.0}[mode],
    }
    if name == "fedsgd":
        changes |= {"job.training.local_steps": 1}
    if mode != "none":
        changes |= {"job.privacy.epsilon": 20.0}
    finished = simulate(scenario(mode, changes), tmp_path / "world")
    state = finished.state
    assert len(state.rounds) == ROUNDS
    assert all(set(row) == KEYS for row in state.rounds)
    first = flatten(model_of(finished.work.job))
    found = measure(finished.work.job, backstage_of(finished.federation, finished.work.job), [first, state.parameters])
    assert found.accuracy is not None
    assert found.accuracy > 0.62
    assert found.accuracy > (found.curve[0] or 0.0) + 0.05
    if mode == "M2":
        assert state.rounds[-1]["loss"] < state.rounds[0]["loss"]
        assert all(math.isfinite(value) for value in state.rounds[-1]["epsilon"].values())
    else:
        assert state.rounds[0]["loss"] is None
    if mode == "none":
        assert set(state.rounds[-1]["epsilon"].values()) == {None}
        assert state.evaluation is not None
        assert state.evaluation["noise_sd"] == 0.0
        assert sum(np.array(state.evaluation["counts"]).reshape(-1)) > 100


def test_a_smoothed_estimate_forgets_only_what_weighs_nothing() -> None:
    """Rounds far back are left out to save time, and the figure stays the same to the last bit."""
    rows = [{"noisy_loss": 0.1 + (n * 7919 % 1000) / 300} for n in range(700)]
    assert _smoothed(rows[-REMEMBERED - 1 :], "noisy_loss") == _smoothed(rows, "noisy_loss")
