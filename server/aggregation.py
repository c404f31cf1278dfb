"""From a cohort to one opened sum: a session, masked reports, unmasking, recovery; each with its deadline."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from common.errors import Code, Refusal
from common.messages import Head, RecoverOrder, Released, Reported, Task, Unmasked, UnmaskOrder, WorkOrder
from common.secagg.codec import Sum
from common.secagg.statements import Aggregation
from common.work import Work
from server.checkpoints import State
from server.cohort import Patience
from server.enrolment import Opening
from server.gathering import Answer, Questions
from server.recovery import Recovering
from server.secagg import Collecting, Unmasking
from server.sessions import Sessions

log = logging.getLogger(__name__)


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
        self._patience = Patience()
        self.sessions = Sessions(questions, work, run, self._patience)

    def gather(self, task: Task, round_number: int, attempt: int, state: State, cohort: Iterable[int]) -> Gathered:
        """One attempt at the sum of a task over the cohort. Never raises for what sites do or fail to do."""
        asked = self._patience.asked(cohort, self._work.job.aggregation.quorum)
        refused: dict[int, Code] = {}
        try:
            opening = self.sessions.current(asked, refused)
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
        """The sum; or why there is none. An unmasking site lost for good ends the session: the next does without it."""
        try:
            if len(collecting.reports) < self._work.job.aggregation.quorum:
                return None, Code.E_TOO_FEW
            unmasking = self._unmasked(order, collecting.close(), gathered, away=self._away(collecting))
            if unmasking.missing and self.sessions.opening:
                unmasking = self._recovered(order, Recovering.open(self.sessions.opening, unmasking), gathered)
            return unmasking.open(self._work.codec(order.task)), None
        except Refusal as refusal:
            self.sessions.drop()
            return None, refusal.code

    def _away(self, collecting: Collecting) -> frozenset[int]:
        """Unmasking sites that were not asked for a report, if so few that the others can recover them."""
        away = frozenset(collecting.aggregation.session.unmaskers) - collecting.cohort
        return away if len(away) <= self._work.manifest.rules.lost_max else frozenset()

    def _unmasked(self, order: WorkOrder, unmasking: Unmasking, gathered: Gathered, away: frozenset[int]) -> Unmasking:
        """Ask for the masks; a site that gave none is asked once more with the very same set, then left out a while.

        Sites that are away are asked only where too many are missing to be recovered. Notes bytes and refusals in
        `gathered`. Masks that are forged or of another set count as none.
        """
        asked: frozenset[int] = frozenset()
        for again in range(2):
            few = again and len(unmasking.missing) > self._work.manifest.rules.lost_max
            to = unmasking.missing if few else unmasking.missing - away
            if not to:
                break
            time.sleep(self._pause * again)
            asked |= to
            orders = {site: self._unmask_order(order, unmasking, site) for site in to}
            for answer in self._questions.ask(orders, tuple(orders), self._seconds):
                gathered.sizes[answer.site] = gathered.sizes.get(answer.site, 0) + answer.size
                unmasking, code = _unveiled(unmasking, answer)
                if code:
                    gathered.refused[answer.site] = code
        for site in unmasking.missing & asked:
            self._patience.note(site, silent=True)
        return unmasking

    def _recovered(self, order: WorkOrder, recovering: Recovering, gathered: Gathered) -> Unmasking:
        """Ask the sites that answered for their shares of the lost ones, and take the lost ones' masks away.

        Who is silent or spoils a share is asked once more; who is not needed is not waited for. A lost site whose seed
        cannot be rebuilt stays missing.
        """
        ask = RecoverOrder(
            run=self._run,
            job=order.job,
            task=order.task,
            number=order.number,
            session=order.session,
            binding=recovering.unmasking.aggregation.binding,
            answered=recovering.unmasking.set_digest,
            lost=recovering.lost,
        )
        for again in range(2):
            time.sleep(self._pause * again)
            for answer in self._questions.ask(ask, recovering.missing, self._seconds):
                gathered.sizes[answer.site] = gathered.sizes.get(answer.site, 0) + answer.size
                recovering, code = _released(recovering, answer)
                if code:
                    gathered.refused[answer.site] = code
                if recovering.enough:
                    break
            if recovering.enough:
                break
        unmasking = recovering.unmasking
        for site in recovering.lost if recovering.enough else ():
            try:
                unmasking = recovering.recover(unmasking, site)
                log.info("masks of site %d were recovered for number %d", site, order.number)
            except Refusal as refusal:
                gathered.refused[site] = refusal.code
        return unmasking

    def _unmask_order(self, order: WorkOrder, unmasking: Unmasking, site: int) -> UnmaskOrder:
        return UnmaskOrder(
            run=self._run,
            job=order.job,
            task=order.task,
            number=order.number,
            session=order.session,
            binding=unmasking.aggregation.binding,
            members=unmasking.members(site),
        )

    def _order(self, task: Task, round_number: int, attempt: int, state: State, opening: Opening) -> WorkOrder:
        number = self.sessions.number()
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


def _released(recovering: Recovering, answer: Answer) -> tuple[Recovering, Code | None]:
    """`recovering` with the shares of `answer`, or with the code that says why they do not count."""
    if not isinstance(answer.reply, Released):
        return recovering, answer.code or Code.MESSAGE_INVALID
    try:
        return recovering.receive(answer.site, answer.reply.release), None
    except Refusal as refusal:
        return recovering, refusal.code


def _received(collecting: Collecting, answer: Answer) -> tuple[Collecting, Code | None]:
    """`collecting` with the report of `answer`, or with the code that says why it was left out."""
    assert isinstance(answer.reply, Reported)  # noqa: S101  # the caller looked
    try:
        return collecting.receive(answer.site, answer.reply.report), None
    except Refusal as refusal:
        return collecting, refusal.code
