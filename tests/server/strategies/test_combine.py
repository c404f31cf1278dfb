"""Rules that vote: a lying minority moves no coordinate past the honest groups; a majority is a refusal, not a mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays

from common.errors import Code, Refusal
from server.strategies.catalogue import strategy

RULES = ["median", "trimmed-mean"]
reals = some.floats(-1e6, 1e6, allow_subnormal=False)


@pytest.mark.parametrize("rule", RULES)
@given(data=some.data())
def test_a_lying_minority_moves_nothing_past_the_honest(rule: str, data: some.DataObject) -> None:
    liars = data.draw(some.integers(1, 3))
    honest = data.draw(arrays(np.float64, (liars + data.draw(some.integers(1, 4)), 3), elements=reals))
    lies = data.draw(arrays(np.float64, (liars, 3), elements=some.floats(-1e30, 1e30)))
    rows = data.draw(some.permutations([*honest, *lies]))
    update = strategy(rule, liars=liars).combine.apply(np.array(rows))
    assert (update >= honest.min(axis=0) - 1e-9).all()
    assert (update <= honest.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize("rule", RULES)
def test_without_lies_and_spread_the_rule_is_the_mean(rule: str) -> None:
    rows = np.tile([1.5, -2.0], (5, 1))
    assert strategy(rule, liars=2).combine.apply(rows).tolist() == [1.5, -2.0]


def test_the_trimmed_mean_leaves_out_the_extremes_of_each_coordinate() -> None:
    rows = np.array([[0.0, 9.0], [1.0, 8.0], [2.0, 7.0], [3.0, 6.0], [100.0, -100.0]])
    assert strategy("trimmed-mean", liars=1).combine.apply(rows).tolist() == [2.0, 7.0]
    assert strategy("median", liars=1).combine.apply(rows).tolist() == [2.0, 7.0]


@pytest.mark.parametrize("rule", RULES)
def test_too_few_groups_are_refused(rule: str) -> None:
    """Must not: fall back to an average that one liar decides."""
    combine = strategy(rule, liars=1).combine
    with pytest.raises(Refusal) as caught:
        combine.apply(np.zeros((2, 1)))
    assert caught.value.code is Code.E_TOO_FEW
    with pytest.raises(Refusal):  # groups that are not finite do not vote
        combine.apply(np.array([[0.0], [np.nan], [np.inf]]))


@pytest.mark.parametrize("settings", [{}, {"liars": 0}, {"liars": -1}, {"liars": 1, "rate": 0.0}])
def test_a_promise_must_be_made(settings: dict[str, float]) -> None:
    with pytest.raises(Refusal):
        strategy("median", **settings)


@pytest.mark.parametrize("count", [0, 2, 3])
def test_the_one_sum_is_taken_and_several_are_refused(count: int) -> None:
    """Must not: take the first group's sum for that of all, also where Python leaves assertions out."""
    combine = strategy("fedavg").combine
    assert combine.apply(np.ones((1, 3))).tolist() == [1.0] * 3
    with pytest.raises(Refusal, match="for rules that vote") as caught:
        combine.apply(np.ones((count, 3)))
    assert caught.value.code is Code.UPDATE_INVALID
