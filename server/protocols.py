"""Which protocol of secure aggregation plays the attempts of a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from common.orders import Task
from common.work import Work
from server.aggregation import Aggregator, Gathered
from server.checkpoints import State
from server.gathering import Questions
from server.pairwise.attempts import PairwiseAggregator


class Sums(Protocol):
    """From a cohort to opened sums, whatever the protocol; the sums of all protocols are the same."""

    def gather(
        self, task: Task, round_number: int, attempt: int, state: State, cohort: Iterable[int], *, least: int = 1
    ) -> Gathered:
        """One attempt at the sums of a task over the cohort. Never raises for what sites do or fail to do.

        least  sums without which the attempt has failed
        """


def sums_of(
    questions: Questions,
    work: Work,
    run: bytes,
    pause: float = 0.0,
    *,
    known: Mapping[int, str] = MappingProxyType({}),
) -> Sums:
    """The protocol that the job names.

    pause  seconds that an unmasking site is given to come back before it is asked again
    known  ledger heads (hex) by site that were acknowledged in earlier runs on the same data set
    """
    if work.job.aggregation.protocol == "bonawitz":
        return PairwiseAggregator(questions, work, run, known=known)
    return Aggregator(questions, work, run, pause, known=known)
