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


@dataclass(frozen=True)
class Combine:
    """Many updates to one.

    needs  "sum": the mean update of all sites together; "groups": those of random groups, one secure sum each
    liars  lying sites that it outvotes; none with one sum
    apply  mean updates [m, d] of m groups (of one, if it needs the sum) -> update [d]
    """

    needs: Literal["sum", "groups"]
    liars: int
    apply: Callable[[Rows64], Flat64]


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


def same(plan: TrainingPlan) -> TrainingPlan:
    """The sites train as the job says."""
    return plan
