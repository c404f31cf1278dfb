"""How a run reaches its sites: by signed orders; a simulation has other ways to the same sums."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from common.errors import Code
from common.identity import Signer
from common.messages import OfferOrder
from common.work import Work
from server.checkpoints import State
from server.clock import Clock
from server.closing import Before, Collected, collect
from server.gathering import Questions
from server.protocols import Sums, sums_of


class Reach(Protocol):
    """What a run needs of its sites, from the offer of the job to their ledgers.

    signer  signs the record      clock  by which the run's times are told, and its waits end
    """

    @property
    def signer(self) -> Signer: ...
    @property
    def clock(self) -> Clock: ...

    def present(self) -> Collection[int]:
        """Ids of the sites that are connected now."""

    def offer(self, work: Work, run: bytes) -> Iterator[tuple[int, Code | None]]:
        """Offer the job to every site that is here; the code with which each refuses, None if it does not."""

    def sums(self, work: Work, run: bytes, known: Mapping[int, str]) -> Sums:
        """What opens the sums of this run. known: ledger heads (hex) by site, acknowledged in earlier runs."""

    def collect(self, work: Work, run: bytes, state: State, before: Before) -> Collected:
        """What sites give when the run is over."""


@dataclass(frozen=True)
class Asked:
    """`Reach` of a deployment, and of a world whose sites have sessions.

    pause  seconds that a site which was killed is given to come back before it is asked again
    """

    questions: Questions
    pause: float = 0.0

    @property
    def signer(self) -> Signer:
        """The coordinator's key."""
        return self.questions.signer

    @property
    def clock(self) -> Clock:
        """See `Reach`."""
        return self.questions.clock

    def present(self) -> frozenset[int]:
        """See `Reach`."""
        return self.questions.sites.present()

    def offer(self, work: Work, run: bytes) -> Iterator[tuple[int, Code | None]]:
        """See `Reach`."""
        order = OfferOrder(run=run, job=work.job.to_bytes())
        for answer in self.questions.ask(order, self.present(), work.job.aggregation.deadline_seconds):
            yield answer.site, answer.code

    def sums(self, work: Work, run: bytes, known: Mapping[int, str]) -> Sums:
        """See `Reach`."""
        return sums_of(self.questions, work, run, self.pause, known=known)

    def collect(self, work: Work, run: bytes, state: State, before: Before) -> Collected:
        """See `Reach`."""
        return collect(work, self.questions, run, state, before=before, pause=self.pause)
