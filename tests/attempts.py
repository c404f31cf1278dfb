"""Attempts at a sum over lines that a test may cut, and sites that lie."""

from __future__ import annotations

from collections.abc import Callable

from common.frames import unpack
from common.identity import Signer
from common.messages import LIMIT, AnyOrder, AnyReply, Envelope, WorkOrder, seal
from common.parameters import flatten
from common.work import model_of
from server.aggregation import Aggregator, Gathered
from server.checkpoints import State
from tests.worlds import RUN, Desk, Line, Lines, questions_of


class Attempts:
    """Attempts one after the other, by one aggregator over lines that a test may cut."""

    def __init__(self, desk: Desk):
        self.desk, self.lines, self.seen = desk, Lines(desk), list[tuple[int, AnyOrder]]()
        self.aggregator = Aggregator(questions_of(desk, self.lines), desk.work, RUN)
        self.state = State(parameters=flatten(model_of(desk.work.job)))
        self.count = 0

    def next(self, line: Line | None = None) -> Gathered:
        """One attempt; `line` decides what becomes of each frame."""
        cut = line or (lambda site, order, answer: answer())

        def watched(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
            self.seen.append((site, order))
            return cut(site, order, answer)

        self.lines.line, self.count, self.seen = watched, self.count + 1, []
        cohort = self.desk.work.manifest.ids
        return self.aggregator.gather("train", self.count, 0, self.state, cohort)

    def sessions(self) -> set[bytes]:
        """Names of the sessions of the last attempt's work orders."""
        return {order.session.sid for _, order in self.seen if isinstance(order, WorkOrder)}

    def asked(self, kind: type[AnyOrder]) -> list[int]:
        return [site for site, order in self.seen if isinstance(order, kind)]


def losing(kind: type[AnyOrder], *sites: int) -> Line:
    return lambda site, order, answer: None if isinstance(order, kind) and site in sites else answer()


def unmaskers(attempts: Attempts) -> tuple[int, ...]:
    opening = attempts.aggregator.sessions.opening
    assert opening is not None
    return opening.session.unmaskers


def forged(desk: Desk, kind: type[AnyOrder], change: Callable[[AnyReply], AnyReply], liar: int = 1) -> Line:
    """A site changes what it answers to orders of a kind, and signs it as its own."""
    signer = Signer.load(desk.federation.sites[liar - 1].root / "state" / "identity")

    def line(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        data = answer()
        if site != liar or not isinstance(order, kind):
            return data
        reply: AnyReply = unpack(AnyReply, unpack(Envelope, data, LIMIT).body, LIMIT)  # type: ignore[arg-type]
        return seal(liar, change(reply), signer)

    return line
