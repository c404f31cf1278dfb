"""From a cohort to one opened sum: sessions of unmasking sites, masked reports, unmasking; each with its deadline."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from common.errors import Code, Refusal
from common.messages import Enrolled, EnrolOrder, Reported, Unmasked, UnmaskOrder, WorkOrder
from common.orders import Head, Task
from common.randomness import child
from common.secagg.codec import Sum
from common.secagg.statements import Aggregation
from common.secagg.wire import SessionRecord
from common.work import Work
from server.checkpoints import State
from server.cohort import Patience
from server.enrolment import Opening, open_session
from server.gathering import Answer, Questions
from server.secagg import Collecting, Unmasking

OPENINGS = 3  # sessions tried for one attempt before it counts as failed


@dataclass(frozen=True)
class Gathered:
    """What one attempt brought, also when it failed.

    sum      the opened sum, or None with the `failure`
    sites    members of the sum            refused  code of each site that is not one
    charges  ledger head and epsilon that each reporting site now stands at
    sizes    bytes that each site sent and received
    """

    opened: Sum | None
    failure: Code | None
    sites: tuple[int, ...] = ()
    refused: dict[int, Code] = field(default_factory=dict)
    charges: dict[int, tuple[bytes, float]] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)

    @property
    def sum(self) -> Sum:
        """The opened sum. Errors: Refusal with the failure."""
        if self.opened is None:
            raise Refusal(self.failure or Code.INTERNAL, "No sum", "the attempt failed", "Repeat it")
        return self.opened


class Aggregator:
    """Opens sums one after the other. It remembers the session in force and which sites keep it waiting.

    known  ledger heads (hex) by site that were acknowledged in earlier runs on the same data set
    """

    def __init__(
        self,
        questions: Questions,
        work: Work,
        run: bytes,
        pause: float = 0.0,
        *,
        known: Mapping[int, str] = MappingProxyType({}),
    ):
        self._questions, self._work, self._run, self._pause = questions, work, run, pause
        self._known = known
        self._opening: Opening | None = None
        self._next = 0
        self._patience = Patience()

    def gather(self, task: Task, round_number: int, attempt: int, state: State, cohort: Iterable[int]) -> Gathered:
        """One attempt at the sum of a task over the cohort. Never raises for what sites do or fail to do."""
        asked = self._patience.asked(cohort, self._work.job.aggregation.quorum)
        refused: dict[int, Code] = {}
        try:
            opening = self._session(asked, refused)
            order = self._order(task, round_number, attempt, state, opening)
            binding = self._work.binding(task, round_number, attempt, state.parameters)
            aggregation = Aggregation(
                manifest=self._work.manifest,
                session=opening.session,
                number=order.number,
                binding=binding,
                ring=self._work.codec(task).ring,
            )
            collecting = Collecting.open(aggregation, asked)
        except Refusal as refusal:
            return Gathered(None, refusal.code, refused=refused)
        return self._collected(order, collecting, refused)

    def _collected(self, order: WorkOrder, collecting: Collecting, refused: dict[int, Code]) -> Gathered:
        charges: dict[int, tuple[bytes, float]] = {}
        sizes: dict[int, int] = {}
        for answer in self._questions.ask(order, collecting.cohort, self._seconds):
            sizes[answer.site] = answer.size
            if isinstance(answer.reply, Reported):
                charges[answer.site] = (answer.reply.head, answer.reply.epsilon)
                collecting, code = _received(collecting, answer)
            else:
                code = answer.code or Code.MESSAGE_INVALID
            if code:
                refused[answer.site] = code
            self._patience.note(answer.site, silent=code is Code.SITE_UNREACHABLE)
        gathered = Gathered(None, None, tuple(sorted(collecting.reports)), refused, charges, sizes)
        opened, failure = self._opened(order, collecting, gathered)
        return replace(gathered, opened=opened, failure=failure, sites=gathered.sites if opened else ())

    def _opened(self, order: WorkOrder, collecting: Collecting, gathered: Gathered) -> tuple[Sum | None, Code | None]:
        """The sum; or why there is none. A lost unmasking site ends the session: the next one does without it."""
        try:
            if len(collecting.reports) < self._work.job.aggregation.quorum:
                return None, Code.E_TOO_FEW
            unmasking = self._unmasked(order, collecting.close(), gathered)
            return unmasking.open(self._work.codec(order.task)), None
        except Refusal as refusal:
            self._opening = None
            return None, refusal.code

    def _unmasked(self, order: WorkOrder, unmasking: Unmasking, gathered: Gathered) -> Unmasking:
        """Ask for the masks; a site that gave none is asked once more with the very same set, then left out a while.

        Notes bytes and refusals in `gathered`. Masks that are forged or of another set count as none.
        """
        for asked in range(2):
            time.sleep(self._pause * asked)
            orders = {
                site: UnmaskOrder(
                    run=self._run,
                    job=order.job,
                    task=order.task,
                    number=order.number,
                    session=order.session,
                    binding=unmasking.aggregation.binding,
                    members=unmasking.members(site),
                )
                for site in unmasking.missing
            }
            for answer in self._questions.ask(orders, tuple(orders), self._seconds):
                gathered.sizes[answer.site] = gathered.sizes.get(answer.site, 0) + answer.size
                unmasking, code = _unveiled(unmasking, answer)
                if code:
                    gathered.refused[answer.site] = code
            if not unmasking.missing:
                break
        for site in unmasking.missing:
            self._patience.note(site, silent=True)
        return unmasking

    def _session(self, asked: Iterable[int], refused: dict[int, Code]) -> Opening:
        """The session in force if its unmasking sites are here and numbers are left, or a new one."""
        here = frozenset(asked)
        if self._opening and self._next < self._opening.session.count and here >= set(self._opening.session.unmaskers):
            return self._opening
        self._opening = None
        for _ in range(OPENINGS):
            session = open_session(
                self._work.manifest,
                self._work.job.digest(),
                here,
                range(self._work.job.aggregation.session_rounds),
                sid=(sid := secrets.token_bytes(32)),
                draw=child(int.from_bytes(sid[:7], "big"), "unmaskers"),
            )
            opening = self._enrolled(session, refused)
            if not opening.missing:
                self._opening, self._next = opening, 0
                return opening
            here -= opening.missing
        raise Refusal(Code.E_TOO_FEW, "Session not opened", "unmasking sites do not enrol", "Look at their refusals")

    def _enrolled(self, session: SessionRecord, refused: dict[int, Code]) -> Opening:
        opening = Opening(self._work.manifest, session)
        order = EnrolOrder(run=self._run, job=self._work.job.to_bytes(), session=session)
        for answer in self._questions.ask(order, session.unmaskers, self._seconds):
            code = answer.code
            if isinstance(answer.reply, Enrolled):
                try:
                    opening = opening.receive(answer.site, answer.reply.keys)
                except Refusal as refusal:
                    code = refusal.code
            elif answer.reply:
                code = Code.MESSAGE_INVALID
            if code:
                refused[answer.site] = code
            self._patience.note(answer.site, silent=code is Code.SITE_UNREACHABLE)
        return opening

    def _order(self, task: Task, round_number: int, attempt: int, state: State, opening: Opening) -> WorkOrder:
        number, self._next = self._next, self._next + 1
        heads = {**self._known, **state.heads}
        return WorkOrder(
            run=self._run,
            job=self._work.job.to_bytes(),
            task=task,
            round=round_number,
            attempt=attempt,
            number=number,
            session=opening.session,
            keys=opening.keys(number),
            parameters=state.parameters.astype("<f4").tobytes(),
            heads=tuple(Head(site=site, head=bytes.fromhex(head)) for site, head in sorted(heads.items())),
        )

    @property
    def _seconds(self) -> float:
        return self._work.job.aggregation.deadline_seconds


def _unveiled(unmasking: Unmasking, answer: Answer) -> tuple[Unmasking, Code | None]:
    """`unmasking` with the masks of `answer` taken away, or with the code that says why they were not."""
    if not isinstance(answer.reply, Unmasked):
        return unmasking, answer.code or Code.MESSAGE_INVALID
    try:
        return unmasking.receive(answer.site, answer.reply.total), None
    except Refusal as refusal:
        return unmasking, refusal.code


def _received(collecting: Collecting, answer: Answer) -> tuple[Collecting, Code | None]:
    """`collecting` with the report of `answer`, or with the code that says why it was left out."""
    assert isinstance(answer.reply, Reported)  # noqa: S101  # the caller looked
    try:
        return collecting.receive(answer.site, answer.reply.report), None
    except Refusal as refusal:
        return collecting, refusal.code
