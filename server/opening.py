"""From fixed sets of reports to opened sums: masks asked for, lost unmasking sites recovered."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from common.errors import Code, Refusal
from common.messages import Members, RecoverOrder, Released, Unmasked, UnmaskOrder
from common.orders import Task
from common.secagg.codec import Sum
from common.secagg.wire import MaskTotal
from common.work import Work
from server.gathering import Answer, Questions
from server.recovery import Recovering
from server.secagg import Unmasking
from server.sessions import Sessions

log = logging.getLogger(__name__)
LIES = frozenset({Code.E_SHARE, Code.E_SIG})  # of shares that a site sent under its own signature


@dataclass(frozen=True)
class Notes:
    """What an attempt shows of its sites: bytes that each sent and received, codes of those that spoiled something."""

    sizes: dict[int, int] = field(default_factory=dict)
    refused: dict[int, Code] = field(default_factory=dict)

    def hear(self, answer: Answer) -> None:
        """Count the bytes of an answer."""
        self.sizes[answer.site] = self.sizes.get(answer.site, 0) + answer.size


class Opener:
    """Opens the sums of one attempt after the other, those of all its groups together."""

    def __init__(self, questions: Questions, work: Work, run: bytes, sessions: Sessions, pause: float):
        self._questions, self._work, self._run = questions, work, run
        self._sessions, self._pause = sessions, pause

    def open(self, task: Task, sets: Sequence[Unmasking], cohort: Collection[int], notes: Notes) -> list[Sum | Code]:
        """The sum of each set, or the code that says why it has none.

        cohort  sites that took part: an unmasking site that did not is not asked while the others can recover it
        A session that cannot open every sum ends: the next one does without the sites that failed it.
        """
        sets = self._unmasked(task, sets, self._away(sets, cohort), notes)
        found: list[Sum | Code] = []
        for unmasking in sets:
            try:
                if unmasking.missing and self._sessions.opening:
                    recovering = Recovering.open(self._sessions.opening, unmasking)
                    unmasking = self._recovered(task, recovering, notes)
                found.append(unmasking.open(self._work.codec(task)))
            except Refusal as refusal:
                found.append(refusal.code)
        if any(isinstance(each, Code) for each in found):
            self._sessions.drop()
        return found

    def _away(self, sets: Sequence[Unmasking], cohort: Collection[int]) -> frozenset[int]:
        """Unmasking sites that were not asked for a report, if so few that the others can recover them."""
        away = frozenset(sets[0].aggregation.session.unmaskers) - frozenset(cohort)
        return away if len(away) <= self._work.manifest.rules.lost_max else frozenset()

    def _unmasked(
        self, task: Task, sets: Sequence[Unmasking], away: frozenset[int], notes: Notes
    ) -> tuple[Unmasking, ...]:
        """Ask for the masks; a site that gave none is asked once more with the very same sets, then left out a while.

        Sites that are away are asked only where too many are missing to be recovered. Masks that are forged or of
        another set count as none.
        """
        sets, asked, most = tuple(sets), frozenset[int](), self._work.manifest.rules.lost_max
        for again in range(2):
            awaited, short = _awaited(sets), max(len(each.missing) for each in sets) > most
            to = awaited if again and short else awaited - away
            if not to:
                break
            self._questions.clock.sleep(self._pause * again)
            asked |= to
            orders = {site: self._unmask_order(task, sets, site) for site in to}
            for answer in self._questions.ask(orders, tuple(orders), self._seconds):
                notes.hear(answer)
                sets, code = _unveiled(sets, answer)
                if code:
                    notes.refused[answer.site] = code
        for site in _awaited(sets) & asked:
            self._sessions.patience.note(site, silent=True)
        return sets

    def _recovered(self, task: Task, recovering: Recovering, notes: Notes) -> Unmasking:
        """Ask the sites that answered for their shares of the lost ones, and take the lost ones' masks away.

        Who is silent or spoils a share is asked once more; who is not needed is not waited for. A lost site whose seed
        cannot be rebuilt stays missing.
        """
        unmasking = recovering.unmasking
        orders = {holder: self._recover_order(task, recovering, holder) for holder in recovering.missing}
        for again in range(2):
            self._questions.clock.sleep(self._pause * again)
            for answer in self._questions.ask(orders, recovering.missing, self._seconds):
                notes.hear(answer)
                recovering, code = _released(recovering, answer)
                if code:
                    notes.refused[answer.site] = code
                if code in LIES:
                    self._sessions.distrust(answer.site)
                if recovering.enough:
                    break
            if recovering.enough:
                break
        for site in recovering.lost if recovering.enough else ():
            try:
                unmasking = recovering.recover(unmasking, site)
                log.info("masks of site %d were recovered for number %d", site, unmasking.aggregation.number)
            except Refusal as refusal:
                notes.refused[site] = refusal.code
                self._sessions.distrust(site)
        return unmasking

    def _recover_order(self, task: Task, recovering: Recovering, holder: int) -> RecoverOrder:
        """What one holder is asked, for the set that it has answered for."""
        about = recovering.unmasking.aggregation
        return RecoverOrder(
            run=self._run,
            job=self._work.job.to_bytes(),
            task=task,
            number=about.number,
            session=about.session,
            binding=about.binding,
            answered=recovering.unmasking.set_digest(holder),
            lost=recovering.lost,
        )

    def _unmask_order(self, task: Task, sets: Sequence[Unmasking], site: int) -> UnmaskOrder:
        """All sets that lack this site's masks."""
        return UnmaskOrder(
            run=self._run,
            job=self._work.job.to_bytes(),
            task=task,
            session=sets[0].aggregation.session,
            sets=tuple(
                Members(number=each.aggregation.number, binding=each.aggregation.binding, members=each.members(site))
                for each in sets
                if site in each.awaited
            ),
        )

    @property
    def _seconds(self) -> float:
        return self._work.job.aggregation.deadline_seconds


def _awaited(sets: Sequence[Unmasking]) -> frozenset[int]:
    """Unmasking sites that can answer for some set and have not done so."""
    return frozenset[int]().union(*(each.awaited for each in sets))


def _unveiled(sets: tuple[Unmasking, ...], answer: Answer) -> tuple[tuple[Unmasking, ...], Code | None]:
    """The sets with the masks of `answer` taken away, or with the code that says why some were not."""
    if not isinstance(answer.reply, Unmasked):
        return sets, answer.code or Code.MESSAGE_INVALID
    totals = {total.number: total for total in answer.reply.totals}
    found, code = [], None
    for each in sets:
        try:
            if answer.site in each.awaited:
                each = each.receive(answer.site, _total_of(totals, each.aggregation.number))
        except Refusal as refusal:
            code = refusal.code
        found.append(each)
    return tuple(found), code


def _total_of(totals: Mapping[int, MaskTotal], number: int) -> MaskTotal:
    if number not in totals:
        raise Refusal(Code.E_ROUND, "Masks refused", "those of a group are missing", "Answer the order in force")
    return totals[number]


def _released(recovering: Recovering, answer: Answer) -> tuple[Recovering, Code | None]:
    """`recovering` with the shares of `answer`, or with the code that says why they do not count."""
    if not isinstance(answer.reply, Released):
        return recovering, answer.code or Code.MESSAGE_INVALID
    try:
        return recovering.receive(answer.site, answer.reply.release), None
    except Refusal as refusal:
        return recovering, refusal.code
