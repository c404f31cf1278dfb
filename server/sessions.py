"""Sessions of unmasking sites, one in force at a time: who unmasks, under which keys, and which number comes next."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from common.errors import Code, Refusal
from common.messages import DealOrder, Dealt, Enrolled, EnrolOrder, KeepOrder, Kept
from common.randomness import child
from common.secagg.wire import SessionRecord
from common.work import Work
from server.cohort import Patience
from server.dealing import Dealing
from server.enrolment import Opening, open_session
from server.gathering import Answer, Questions

OPENINGS = 3  # sessions tried for one attempt before it counts as failed
S = TypeVar("S")


class Sessions:
    """It remembers the session in force, and asks for a new one where that cannot serve.

    opening  the session in force, ready to use      next  its next unused number
    patience  which sites keep it waiting
    """

    def __init__(self, questions: Questions, work: Work, run: bytes, patience: Patience):
        self._questions, self._work, self._run, self.patience = questions, work, run, patience
        self.opening: Opening | None = None
        self.next = 0
        self._distrusted: set[int] = set()

    def distrust(self, site: int) -> None:
        """Leave a site that dealt or released false shares out of sessions, while there are enough others for one.

        Only of those that unmask: what it reports is summed as ever.
        """
        self._distrusted.add(site)

    def current(self, asked: Iterable[int], refused: dict[int, Code], count: int = 1) -> Opening:
        """The session in force if `count` numbers and unmasking sites are left, or a new one.

        asked  sites that take part now; of these a new session is made up
        Codes of sites that spoil the making of it are noted in `refused`. Errors: Refusal E_TOO_FEW.
        """
        here = self._trusted(asked)
        if self.opening and self._serves(self.opening, here, count):
            return self.opening
        self.opening = None
        for _ in range(OPENINGS):
            session = open_session(
                self._work.manifest,
                self._work.job.digest(),
                here,
                range(self._work.job.aggregation.session_rounds),
                sid=(sid := secrets.token_bytes(32)),
                draw=child(int.from_bytes(sid[:7], "big"), "unmaskers"),
            )
            opening, failed = self._opened(session, refused)
            if not failed:
                self.opening, self.next = opening, 0
                return opening
            here -= failed
        raise Refusal(Code.E_TOO_FEW, "Session not opened", "unmasking sites do not enrol", "Look at their refusals")

    def possible(self, asked: Collection[int], count: int) -> bool:
        """Whether the session in force serves these sites, or enough of them unmask for a new one."""
        manifest, here = self._work.manifest, self._trusted(asked)
        if self.opening and self._serves(self.opening, here, count):
            return True
        return len(here.intersection(manifest.unmaskers)) >= manifest.rules.unmaskers_min

    def numbers(self, count: int) -> range:
        """The next `count` numbers of the session in force, for one attempt; used up.

        An attempt begins at a multiple of the job's groups: sites erase by that what belongs to earlier ones.
        """
        first = self._aligned
        self.next = first + count
        return range(first, self.next)

    def _trusted(self, asked: Iterable[int]) -> frozenset[int]:
        """`asked` without those that lied about shares, unless no session can be made up then."""
        here, manifest = frozenset(asked), self._work.manifest
        trusted = here - self._distrusted
        return trusted if len(trusted.intersection(manifest.unmaskers)) >= manifest.rules.unmaskers_min else here

    @property
    def _aligned(self) -> int:
        groups = self._work.job.aggregation.groups
        return -(-self.next // groups) * groups

    def drop(self) -> None:
        """End the session in force: the next sum opens another."""
        self.opening = None

    def _serves(self, opening: Opening, here: frozenset[int], count: int) -> bool:
        """Numbers are left, and all its unmasking sites are here; or few enough are away to be recovered each round.

        A session with all of them here is better than that, if there are sites for one.
        """
        rules, away = self._work.manifest.rules, set(opening.session.unmaskers) - here
        replaceable = len(here & set(self._work.manifest.unmaskers)) >= rules.unmaskers_min
        numbers = self._aligned + count <= opening.session.count
        return numbers and (not away or (len(away) <= rules.lost_max and not replaceable))

    def _opened(self, session: SessionRecord, refused: dict[int, Code]) -> tuple[Opening, frozenset[int]]:
        """The session with its keys and, under rules with shares, these; and the sites that failed it."""
        opening = self._enrolled(session, refused)
        if opening.missing or not self._work.manifest.rules.lost_max:
            return opening, opening.missing
        dealing = self._kept(self._dealt(Dealing(opening), refused), refused)
        failed = dealing.undealt or dealing.disputed | dealing.unkept
        return (opening, failed) if failed else (dealing.close(), failed)

    def _enrolled(self, session: SessionRecord, refused: dict[int, Code]) -> Opening:
        order = EnrolOrder(run=self._run, job=self._work.job.to_bytes(), session=session)
        answers = self._questions.ask(order, session.unmaskers, self._seconds)

        def receive(state: Opening, answer: Answer) -> Opening:
            if not isinstance(answer.reply, Enrolled):
                raise _unexpected(answer)
            return state.receive(answer.site, answer.reply.keys, answer.reply.box)

        return self._heard(Opening(self._work.manifest, session), answers, receive, refused)

    def _dealt(self, dealing: Dealing, refused: dict[int, Code]) -> Dealing:
        session = dealing.opening.session
        order = DealOrder(run=self._run, job=self._work.job.to_bytes(), session=session, boxes=dealing.boxes)
        answers = self._questions.ask(order, session.unmaskers, self._seconds)

        def receive(state: Dealing, answer: Answer) -> Dealing:
            if not isinstance(answer.reply, Dealt):
                raise _unexpected(answer)
            return state.receive(answer.site, answer.reply.parcels)

        return self._heard(dealing, answers, receive, refused)

    def _kept(self, dealing: Dealing, refused: dict[int, Code]) -> Dealing:
        if dealing.undealt:
            return dealing
        session, job = dealing.opening.session, self._work.job.to_bytes()
        orders = {
            site: KeepOrder(run=self._run, job=job, session=session, parcels=dealing.meant_for(site))
            for site in session.unmaskers
        }
        answers = self._questions.ask(orders, session.unmaskers, self._seconds)

        def receive(state: Dealing, answer: Answer) -> Dealing:
            if not isinstance(answer.reply, Kept):
                raise _unexpected(answer)
            return state.confirm(answer.site, answer.reply.bad)

        dealing = self._heard(dealing, answers, receive, refused)
        refused |= dict.fromkeys(dealing.disputed, Code.E_SHARE)
        return dealing

    def _heard(
        self, state: S, answers: Iterable[Answer], receive: Callable[[S, Answer], S], refused: dict[int, Code]
    ) -> S:
        """The state after all answers; codes of those that do not count are noted, and who was silent."""
        for answer in answers:
            code = None
            try:
                state = receive(state, answer)
            except Refusal as refusal:
                code = refused[answer.site] = refusal.code
            self.patience.note(answer.site, silent=code is Code.SITE_UNREACHABLE)
        return state

    @property
    def _seconds(self) -> float:
        return self._work.job.aggregation.deadline_seconds


def _unexpected(answer: Answer) -> Refusal:
    """Why an answer is none: the code it brought, or that it is of another kind."""
    code = answer.code or Code.MESSAGE_INVALID
    return Refusal(code, f"Answer of site {answer.site} not used", "it is of another kind", "Look at the site's log")
