"""From a cohort to opened sums: a session, groups, masked reports, unmasking; each with its deadline."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from common.errors import Code, Refusal
from common.messages import Reported, WorkOrder
from common.orders import Head, Task
from common.randomness import child
from common.secagg.codec import Sum
from common.secagg.statements import Aggregation
from common.secagg.wire import SessionRecord
from common.work import Work
from server.checkpoints import State
from server.cohort import Patience
from server.enrolment import Opening
from server.gathering import Questions
from server.groups import grouped
from server.opening import Notes, Opener
from server.secagg import Collecting, thin
from server.sessions import Sessions


@dataclass(frozen=True)
class Part:
    """One opened sum and the sites whose reports are in it."""

    sites: tuple[int, ...]
    sum: Sum


@dataclass(frozen=True)
class Gathered:
    """What one attempt brought, also when it failed.

    parts    the opened sums: one, or one of each group that has enough reports; none with the `failure`
    charges  ledger head and epsilon that each reporting site now stands at
    notes    bytes of each site, and codes of those that are in no sum or spoiled something
    """

    parts: tuple[Part, ...]
    failure: Code | None
    charges: dict[int, tuple[bytes, float]] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)

    @property
    def sites(self) -> tuple[int, ...]:
        """Members of all sums."""
        return tuple(sorted(site for part in self.parts for site in part.sites))

    @property
    def sum(self) -> Sum:
        """The sum over all of them. Errors: Refusal with the failure."""
        if not self.parts:
            raise Refusal(self.failure or Code.INTERNAL, "No sum", "the attempt failed", "Repeat it")
        first, *others = (part.sum for part in self.parts)
        for other in others:
            first += other
        return first


@dataclass(frozen=True)
class Lot:
    """One group on its way to its sum."""

    order: WorkOrder
    collecting: Collecting


class Aggregator:
    """Opens sums, one attempt after the other. It remembers the session in force and which sites keep it waiting.

    known  ledger heads (hex) by site that were acknowledged in earlier runs on the same data set
    pause  seconds that an unmasking site is given to come back before it is asked again
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
        self._questions, self._work, self._run, self._known = questions, work, run, known
        self._patience = Patience()
        self.sessions = Sessions(questions, work, run, self._patience)
        self._opener = Opener(questions, work, run, self.sessions, pause)

    def gather(
        self, task: Task, round_number: int, attempt: int, state: State, cohort: Iterable[int], *, least: int = 1
    ) -> Gathered:
        """One attempt at the sums of a task over the cohort. Never raises for what sites do or fail to do.

        least  sums without which the attempt has failed
        """
        count, notes, here = self._work.groups(task), Notes(), tuple(cohort)
        ready = self._patience.asked(here, self._work.job.aggregation.quorum * count)
        helpers = self._helpers()
        asked = ready if self.sessions.possible(helpers.union(ready), count) else here
        try:
            opening = self.sessions.current(helpers.union(asked), notes.refused, count)
            asked = self._seen(asked, here, opening.session, count)
            groups = self._grouped(task, round_number, attempt, asked, opening.session)
            numbers = self.sessions.numbers(count)
            place = (round_number, attempt)
            lots = [
                self._lot(self._order(task, place, state, opening, number), group)
                for number, group in zip(numbers, groups, strict=True)
            ]
        except Refusal as refusal:
            return Gathered((), refusal.code, notes=notes)
        return self._collected(lots, notes, least, helpers)

    def _helpers(self) -> frozenset[int]:
        """Sites that may unmask beside the cohort: where a round asks a few sites, a session outlives its cohorts."""
        asked = self._work.job.aggregation
        if asked.cohort is None and asked.site_rate is None:
            return frozenset()
        return frozenset(self._work.manifest.unmaskers) & self._questions.sites.present()

    def _seen(
        self, asked: tuple[int, ...], here: tuple[int, ...], session: SessionRecord, count: int
    ) -> tuple[int, ...]:
        """`asked`; or all that are here, where without those that pause some unmasking site would see too little."""
        few = thin(self._work.manifest, session, asked, self._work.job.aggregation.quorum * count)
        return here if few else asked

    def _grouped(
        self, task: Task, round_number: int, attempt: int, asked: Collection[int], session: SessionRecord
    ) -> tuple[tuple[int, ...], ...]:
        """The cohort in groups. Who is with whom follows from the job's seed, round and attempt.

        Better groups of which every unmasking site sees enough; else some that may be thin, and be recovered.
        """
        draw, count = child(self._work.job.seed, "groups", round_number, attempt), self._work.groups(task)
        try:
            return grouped(asked, count, fits=lambda group: self._fits(group, session), draw=draw)
        except Refusal:
            most = self._work.manifest.rules.lost_max
            return grouped(asked, count, fits=lambda group: self._fits(group, session, most), draw=draw)

    def _lot(self, order: WorkOrder, group: Collection[int]) -> Lot:
        place = self._work.group_of(order.session, order.number)
        aggregation = Aggregation(
            manifest=self._work.manifest,
            session=order.session,
            number=order.number,
            binding=self._work.binding(order, np.frombuffer(order.parameters, "<f4"), place),
            ring=self._work.codec(order.task).ring,
            groups=self._work.job.aggregation.groups,
        )
        return Lot(order, Collecting.open(aggregation, group, self._work.job.aggregation.quorum))

    def _collected(self, lots: list[Lot], notes: Notes, least: int, helpers: frozenset[int]) -> Gathered:
        charges: dict[int, tuple[bytes, float]] = {}
        place = {site: index for index, lot in enumerate(lots) for site in lot.collecting.cohort}
        orders = {site: lots[index].order for site, index in place.items()}
        for answer in self._questions.ask(orders if len(lots) > 1 else lots[0].order, tuple(place), self._seconds):
            notes.hear(answer)
            code: Code | None = answer.code or Code.MESSAGE_INVALID
            if isinstance(answer.reply, Reported):
                charges[answer.site] = (answer.reply.head, answer.reply.epsilon)
                at = place[answer.site]
                lots[at], code = _received(lots[at], answer.site, answer.reply)
            if code:
                notes.refused[answer.site] = code
            self._patience.note(answer.site, silent=code is Code.SITE_UNREACHABLE)
        parts, failure = self._opened(lots, notes, helpers)
        if len(parts) < least:
            return Gathered((), failure or Code.E_TOO_FEW, charges, notes)
        return Gathered(parts, None, charges, notes)

    def _opened(self, lots: list[Lot], notes: Notes, helpers: frozenset[int]) -> tuple[tuple[Part, ...], Code | None]:
        """The sums of all groups with enough reports; and why others have none.

        helpers  sites that may be asked to unmask though they are in no group
        """
        most = self._work.manifest.rules.lost_max
        enough = [lot for lot in lots if self._fits(lot.collecting.reports, lot.order.session, most)]
        if not enough:
            return (), Code.E_TOO_FEW
        cohort = helpers.union(*(lot.collecting.cohort for lot in lots))
        sets = [lot.collecting.close() for lot in enough]
        found = self._opener.open(lots[0].order.task, sets, cohort, notes)
        parts = [
            Part(tuple(sorted(lot.collecting.reports)), opened)
            for lot, opened in zip(enough, found, strict=True)
            if isinstance(opened, Sum)
        ]
        return tuple(parts), next((each for each in found if isinstance(each, Code)), None)

    def _fits(self, sites: Collection[int], session: SessionRecord, thin_max: int = 0) -> bool:
        """Whether these reports may have a sum: the job's quorum, organisations, and enough for each unmasking site.

        thin_max  unmasking sites that may see too little, and then count as lost
        """
        manifest, quorum = self._work.manifest, self._work.job.aggregation.quorum
        few = len(manifest.orgs(sites)) < manifest.rules.orgs_min
        return len(sites) >= quorum and not few and len(thin(manifest, session, sites, quorum)) <= thin_max

    def _order(self, task: Task, place: tuple[int, int], state: State, opening: Opening, number: int) -> WorkOrder:
        """The order of one group. place: round and attempt."""
        heads = {**self._known, **state.heads}
        return WorkOrder(
            run=self._run,
            job=self._work.job.to_bytes(),
            task=task,
            round=place[0],
            attempt=place[1],
            number=number,
            session=opening.session,
            keys=opening.keys(number),
            parameters=state.parameters.astype("<f4").tobytes(),
            heads=tuple(Head(site=site, head=bytes.fromhex(head)) for site, head in sorted(heads.items())),
            clip=state.clip if task == "train" else 0.0,
        )

    @property
    def _seconds(self) -> float:
        return self._work.job.aggregation.deadline_seconds


def _received(lot: Lot, site: int, reply: Reported) -> tuple[Lot, Code | None]:
    """`lot` with the report in a site's reply, or with the code that says why it was left out."""
    try:
        return Lot(lot.order, lot.collecting.receive(site, reply.report)), None
    except Refusal as refusal:
        return lot, refusal.code
