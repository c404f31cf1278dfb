"""Strategies against their papers, by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from typer.testing import CliRunner

from common.errors import Code, Refusal
from common.learning.plan import TrainingPlan
from server.strategies.catalogue import STRATEGIES, strategy
from server.strategies.door import app
from server.strategies.votes import VOTES

PLAN = TrainingPlan(learning_rate=0.5, local_steps=5)
PROMISES: dict[str, dict[str, Any]] = {
    "fedprox": {"pull": 0.1},
    **{name: {"liars": 1} for name in VOTES},
    "centered-clipping": {"liars": 1, "radius": 1.0},
    "norm-bound": {"liars": 1, "bound": 1.0},
}
FIRST, SECOND = np.array([2.0, -1.0]), np.array([1.0, 0.0])


def two_steps(name: str, **settings: Any) -> list[np.ndarray]:
    step = strategy(name, **settings).step
    memory, first = step.apply(step.init(2), FIRST)
    return [first, step.apply(memory, SECOND)[1]]


def test_the_mean_of_one_sum_is_taken_as_it_is() -> None:
    combine = strategy("fedavg").combine
    assert (combine.needs, combine.liars) == ("sum", 0)
    assert combine.apply(np.array([[1.0, -2.0]])).tolist() == [1.0, -2.0]


def test_a_sum_that_is_not_finite_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        strategy("fedavg").combine.apply(np.array([[1.0, np.nan]]))
    assert caught.value.code is Code.UPDATE_INVALID


def test_fedavg_moves_by_the_update_and_fedsgd_by_its_rate() -> None:
    assert two_steps("fedavg")[0].tolist() == [2.0, -1.0]
    assert two_steps("fedsgd", rate=0.1)[1].tolist() == [0.1, 0.0]


def test_momentum_keeps_a_share_of_its_last_step() -> None:
    first, second = two_steps("fedavgm", rate=0.5, keep=0.5)
    assert first.tolist() == [1.0, -0.5]
    assert second.tolist() == [0.5 * (0.5 * 2.0 + 1.0), 0.5 * (0.5 * -1.0)]


def test_fedadam_takes_the_steps_of_algorithm_2() -> None:
    """m and v of both rounds written out for the first coordinate; v starts at floor^2."""
    first, second = two_steps("fedadam", rate=0.1, b1=0.9, b2=0.99, floor=0.1)
    m1, v1 = 0.1 * 2.0, 0.99 * 0.01 + 0.01 * 4.0
    m2, v2 = 0.9 * m1 + 0.1 * 1.0, 0.99 * v1 + 0.01 * 1.0
    assert first[0] == pytest.approx(0.1 * m1 / (v1**0.5 + 0.1), rel=1e-12)
    assert second[0] == pytest.approx(0.1 * m2 / (v2**0.5 + 0.1), rel=1e-12)


def test_fedyogi_moves_the_square_by_a_bounded_step() -> None:
    first, second = two_steps("fedyogi", rate=0.1, b1=0.0, b2=0.9, floor=0.1)
    v1 = 0.01 + 0.1 * 4.0  # v < u^2: grows
    v2 = v1 + 0.1 * 1.0
    assert first[0] == pytest.approx(0.1 * 2.0 / (v1**0.5 + 0.1), rel=1e-12)
    assert second[0] == pytest.approx(0.1 * 1.0 / (v2**0.5 + 0.1), rel=1e-12)


def test_fedadagrad_sums_the_squares() -> None:
    first, second = two_steps("fedadagrad", rate=0.1, b1=0.0, floor=0.1)
    assert first[0] == pytest.approx(0.1 * 2.0 / (4.01**0.5 + 0.1), rel=1e-12)
    assert second[0] == pytest.approx(0.1 * 1.0 / (5.01**0.5 + 0.1), rel=1e-12)


def test_sites_train_as_the_strategy_says() -> None:
    assert strategy("fedavg").local(PLAN) == PLAN
    assert strategy("fedsgd").local(PLAN).local_steps == 1
    assert strategy("fedprox", pull=0.3).local(PLAN).proximal == 0.3
    assert PLAN.proximal == 0.0


@pytest.mark.parametrize("name", STRATEGIES)
@given(values=some.lists(some.floats(-1e3, 1e3), min_size=1, max_size=5))
def test_a_step_changes_neither_its_memory_nor_the_update(name: str, values: list[float]) -> None:
    """State in, state out: the same memory and update give the same step, so a checkpoint can replay it."""
    step = strategy(name, **PROMISES.get(name, {})).step
    update = np.array(values)
    memory, _ = step.apply(step.init(len(values)), update)
    kept = {key: array.copy() for key, array in memory.items()}
    once, again = step.apply(memory, update), step.apply(memory, update)
    assert all(np.array_equal(memory[key], kept[key]) for key in kept)
    assert np.array_equal(once[1], again[1])
    assert np.isfinite(once[1]).all()
    assert all(array.dtype == np.float64 and array.shape == update.shape for array in once[0].values())


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("fedavgg", {}, "nearest is 'fedavg'"),
        ("fedadam", {"beta1": 0.9}, "no setting 'beta1'"),
        ("fedadam", {"b1": 1.0}, "below 1"),
        ("fedadam", {"floor": 0.0}, "above 0"),
        ("fedadam", {"rate": float("nan")}, "rate"),
        ("fedprox", {}, "pull"),
        ("fedprox", {"pull": -1.0}, "not negative"),
        ("fedavg", {"rate": "1"}, "rate"),
        ("fedavgm", {"keep": 1.0}, "below 1"),
        ("fedsgd", {"rate": True}, "rate"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused(name: str, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(Refusal, match=told) as caught:
        strategy(name, **settings)
    assert caught.value.code is Code.CONFIG_INVALID


def test_only_rules_that_vote_need_groups() -> None:
    needs = {name: strategy(name, **PROMISES.get(name, {})).combine.needs for name in STRATEGIES}
    assert {name for name, need in needs.items() if need == "groups"} == set(VOTES)


def test_the_door_lists_every_strategy() -> None:
    result = CliRunner().invoke(app, ["list", "--json"])
    entries = json.loads(result.stdout.splitlines()[-1])["entries"]
    assert [entry["name"] for entry in entries] == list(STRATEGIES)


def test_the_door_lists_what_can_come_before_a_vote() -> None:
    result = CliRunner().invoke(app, ["pre", "--json"])
    entries = json.loads(result.stdout.splitlines()[-1])["entries"]
    assert [entry["name"] for entry in entries] == ["clip", "arc", "nnm", "bucketing"]
