"""Sums by pairwise masks: five stages an attempt, each with its deadline; who is silent in one is out of the next."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from common.errors import Code, Refusal
from common.messages import AnyOrder, AnyReply
from common.orders import Head, Task
from common.secagg.pairwise.attempt import Attempt
from common.secagg.pairwise.orders import (
    Advertised,
    AdvertiseOrder,
    Agreed,
    AgreeOrder,
    Masked,
    MaskOrder,
    PairDealOrder,
    PairDealt,
    Revealed,
    RevealOrder,
)
from common.secagg.pairwise.wire import PairSession
from common.work import Work
from server.aggregation import Gathered, Part
from server.checkpoints import State
from server.cohort import Patience
from server.gathering import Answer, Questions
from server.opening import Notes
from server.pairwise.revealing import Revealing
from server.pairwise.stages import Advertising, Dealing


class _Stage(Protocol):
    """What all stages have in common; `receive` takes what this stage's replies carry."""

    @property
    def asked(self) -> tuple[int, ...]: ...
    def receive(self, site: int, carried: Any) -> Any: ...


S = TypeVar("S", bound=_Stage)
Read = Callable[[AnyReply], Any]  # what a reply carries; None: it is of another kind


@dataclass
class _Tally:
    """What sites did in one attempt, over all its stages."""

    charges: dict[int, tuple[bytes, float]] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)

    def gathered(self, parts: tuple[Part, ...], failure: Code | None) -> Gathered:
        return Gathered(parts, failure, self.charges, self.notes)


class PairwiseAggregator:
    """`Sums` by pairwise masks. It remembers its session, the next number, and which sites keep it waiting.

    known  ledger heads (hex) by site that were acknowledged in earlier runs on the same data set
    """

    def __init__(
        self, questions: Questions, work: Work, run: bytes, *, known: Mapping[int, str] = MappingProxyType({})
    ):
        self._questions, self._work, self._run, self._known = questions, work, run, known
        manifest = work.manifest
        self._session = PairSession(
            sid=secrets.token_bytes(32),
            manifest=manifest.digest,
            job=work.job.digest(),
            suite=manifest.rules.suite,
        )
        self._next = 0
        self._patience = Patience()

    def gather(
        self, task: Task, round_number: int, attempt: int, state: State, cohort: Iterable[int], *, least: int = 1
    ) -> Gathered:
        """One attempt at the sum of a task over the cohort. Never raises for what sites do or fail to do.

        least  1: jobs with groups are refused under this protocol
        """
        asked = self._patience.asked(cohort, self._work.job.aggregation.quorum)
        tally = _Tally()
        try:
            order = self._order(task, (round_number, attempt), state, asked)
            advertised = self._advertised(order, self._attempt(order, state), tally)
            revealing = self._revealing(order, advertised.close(), tally)
            for site in revealing.false:
                tally.notes.refused[site] = Code.E_SHARE
                self._patience.note(site, silent=True)
            opened = revealing.open(self._work.codec(task))
        except Refusal as refusal:
            return tally.gathered((), refusal.code)
        return tally.gathered((Part(revealing.survivors, opened),), None)

    def _order(self, task: Task, place: tuple[int, int], state: State, cohort: Iterable[int]) -> AdvertiseOrder:
        number, self._next = self._next, self._next + 1
        heads = {**self._known, **state.heads}
        return AdvertiseOrder(
            run=self._run,
            job=self._work.job.to_bytes(),
            task=task,
            round=place[0],
            attempt=place[1],
            number=number,
            session=self._session,
            cohort=tuple(sorted(cohort)),
            parameters=state.parameters.astype("<f4").tobytes(),
            heads=tuple(Head(site=site, head=bytes.fromhex(head)) for site, head in sorted(heads.items())),
            clip=state.clip if task == "train" else 0.0,
        )

    def _attempt(self, order: AdvertiseOrder, state: State) -> Attempt:
        work, rules = self._work, self._work.manifest.rules
        return Attempt(
            manifest=work.manifest,
            session=order.session,
            number=order.number,
            cohort=order.cohort,
            binding=work.binding(order, state.parameters),
            ring=work.codec(order.task).ring,
            quorum=max(work.job.aggregation.quorum, rules.quorum_min),
        )

    def _advertised(self, order: AdvertiseOrder, attempt: Attempt, tally: _Tally) -> Advertising:
        def keys(reply: AnyReply) -> Any:
            return reply.keys if isinstance(reply, Advertised) else None

        return self._played(Advertising(attempt), order, keys, tally)

    def _revealing(self, order: AdvertiseOrder, dealing: Dealing, tally: _Tally) -> Revealing:
        """The four later stages, in the order of the protocol."""
        shared: dict[str, Any] = {
            "run": order.run,
            "job": order.job,
            "sid": order.session.sid,
            "number": order.number,
            "task": order.task,
            "round": order.round,
            "attempt": order.attempt,
        }
        deals = {site: PairDealOrder(**shared, peers=dealing.peers(site)) for site in dealing.asked}
        masking = self._played(dealing, deals, _parcels, tally).close()
        masks = {
            site: MaskOrder(**shared, dealt=masking.masks(site), parcels=masking.incoming(site))
            for site in masking.asked
        }
        agreeing = self._played(masking, masks, _body, tally).close()
        agree = AgreeOrder(**shared, survivors=agreeing.survivors)
        revealing = self._played(agreeing, agree, _signature, tally).close()
        reveals = {site: RevealOrder(**shared, endorsements=revealing.endorsements(site)) for site in revealing.asked}
        return self._played(revealing, reveals, _shares, tally)

    def _played(self, stage: S, orders: AnyOrder | Mapping[int, AnyOrder], read: Read, tally: _Tally) -> S:
        """The stage with every answer that it takes. Who gave none is noted with the code that says why."""
        for answer in self._questions.ask(orders, stage.asked, self._work.job.aggregation.deadline_seconds):
            tally.notes.hear(answer)
            if isinstance(answer.reply, Advertised):
                tally.charges[answer.site] = (answer.reply.head, answer.reply.epsilon)
            stage, code = _taken(stage, answer, read)
            if code:
                tally.notes.refused[answer.site] = code
            self._patience.note(answer.site, silent=code is Code.SITE_UNREACHABLE)
        return stage


def _taken(stage: S, answer: Answer, read: Read) -> tuple[S, Code | None]:
    """`stage` with what `answer` carries, or with the code that says why it was left out."""
    carried = None if answer.reply is None else read(answer.reply)
    if carried is None:
        return stage, answer.code or Code.MESSAGE_INVALID
    try:
        return stage.receive(answer.site, carried), None
    except Refusal as refusal:
        return stage, refusal.code


def _parcels(reply: AnyReply) -> Any:
    return reply.parcels if isinstance(reply, PairDealt) else None


def _body(reply: AnyReply) -> Any:
    return reply.body if isinstance(reply, Masked) else None


def _signature(reply: AnyReply) -> Any:
    return reply.signature if isinstance(reply, Agreed) else None


def _shares(reply: AnyReply) -> Any:
    return reply.shares if isinstance(reply, Revealed) else None
