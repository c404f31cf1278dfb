"""What a strategy is: three values. Its arithmetic is on flat float64 arrays of all parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.learning.plan import TrainingPlan

Flat64 = NDArray[np.float64]  # [d], in the order of `parameters.flatten`
Rows64 = NDArray[np.float64]  # [m, d], one row a group
Memory = Mapping[str, Flat64]  # plain named arrays, so that a checkpoint can hold them

LAST = "combined"  # where a strategy's memory holds the last combined update, for rules that start from it


@dataclass(frozen=True)
class Combine:
    """Many updates to one.

    needs      "sum": the mean update of all sites together; "groups": those of random groups, one secure sum each
    liars      lying sites that it outvotes; none with one sum
    rule       mean updates [m, d] of m groups (of one, if it needs the sum), last combined update [d] -> update [d]
    fewest     lying sites -> groups without which they are not outvoted
    most       groups beyond which it is not computed
    remembers  whether `rule` looks at the last combined update
    votes      whether lies are outvoted; they may also be bounded only, or not at all
    """

    needs: Literal["sum", "groups"]
    liars: int
    rule: Callable[[Rows64, Flat64], Flat64]
    fewest: Callable[[int], int] = lambda _: 1
    most: int = 64
    remembers: bool = False
    votes: bool = False

    @property
    def least(self) -> int:
        """The groups without which there is no update."""
        return self.fewest(self.liars)

    def apply(self, rows: Rows64, last: Flat64 | None = None) -> Flat64:
        """The update of these rows; `last` is the one before, zero in the first round. Nothing given is changed.

        Errors: Refusal E_TOO_FEW where the rows do not outvote the liars, UPDATE_INVALID for rows it cannot use.
        """
        return self.rule(rows, np.zeros(rows.shape[1]) if last is None else last)


@dataclass(frozen=True)
class Step:
    """One update to the next model. Nothing is remembered here: memory goes in and comes out.

    init   d -> memory before the first round
    apply  memory, update -> memory, change; the new parameters are the old ones plus the change

    The update points to where the sites want the parameters to move: the mean difference of trained and sent
    parameters, or the mean gradient with its sign turned.
    """

    init: Callable[[int], Memory]
    apply: Callable[[Memory, Flat64], tuple[Memory, Flat64]]


@dataclass(frozen=True)
class Strategy:
    """local: what the sites do differently (plan -> plan).  combine: many updates -> one.  step: one -> the model."""

    local: Callable[[TrainingPlan], TrainingPlan]
    combine: Combine
    step: Step

    def init(self, size: int) -> Memory:
        """Memory before the first round, for `size` parameters."""
        return {**self.step.init(size), **({LAST: np.zeros(size)} if self.combine.remembers else {})}

    def apply(self, memory: Memory, rows: Rows64) -> tuple[Memory, Flat64]:
        """memory, mean updates [m, d] -> memory, change [d]. Errors: as `Combine.apply`."""
        update = self.combine.apply(rows, memory.get(LAST))
        after, change = self.step.apply({name: kept for name, kept in memory.items() if name != LAST}, update)
        return {**after, **({LAST: update} if self.combine.remembers else {})}, change


def same(plan: TrainingPlan) -> TrainingPlan:
    """The sites train as the job says."""
    return plan
