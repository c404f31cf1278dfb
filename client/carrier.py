"""The loop of a link: join, fetch an order, give it to the agent, bring the reply back, until it is told to stop."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from client.agent_channel import AgentChannel, Failure
from common.errors import Code, Refusal

T = TypeVar("T")
log = logging.getLogger(__name__)

LEAST_SECONDS = 0.25  # how soon a stop is seen while an agent works


class Lost(Exception):
    """The server cannot be reached just now. Worth another try."""


class Unwanted(Exception):
    """The server no longer wants this: its run is over, or the order expired. Not worth another try."""


class NotAdmitted(Exception):
    """The server does not admit this key: it is not registered, or it is still held by an earlier link."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """An order as it came from the server.

    ticket   what the fleet needs to fetch and answer it; opaque here
    seconds  how long an answer is worth anything, counted from its arrival
    arrived  monotonic clock
    """

    ticket: Any = field(repr=False)
    seconds: float
    arrived: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds until nobody wants the answer."""
        return self.arrived + self.seconds - time.monotonic()


class Fleet(Protocol):
    """The server as a link sees it. Every call may raise Lost, or Refusal for what a keeper must mend."""

    def join(self) -> None: ...  # or NotAdmitted
    def beat(self) -> None: ...  # or NotAdmitted
    def next_order(self) -> Order | None: ...  # or NotAdmitted
    def unanswered(self) -> Order | None: ...  # an order that an earlier link of this site took and never answered
    def fetch(self, order: Order) -> bytes: ...  # or Unwanted
    def seal(self, order: Order, reply: bytes | Code) -> Any: ...
    def deliver(self, parcel: Any) -> None: ...  # or Unwanted; may be repeated, is stored once
    def leave(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often a link speaks, in seconds.

    fast, slow  between two polls, within `hot` of the last order and later
    beat        between two signs of life
    longest     most time between two tries while the server is away
    patience    how long a key may be refused before that counts as an answer
    """

    fast: float = 0.15
    slow: float = 0.5
    hot: float = 10.0
    beat: float = 4.0
    longest: float = 2.0
    patience: float = 25.0

    def poll(self, idle: float) -> float:
        """Seconds to the next poll, `idle` seconds after the last order."""
        return self.fast if idle < self.hot else max(self.fast, self.slow)

    def retry(self, failures: int) -> float:
        """Seconds to the next try; the spread keeps sites from coming back in one instant."""
        return min(self.longest, 0.1 * 2.0 ** min(failures, 16)) * random.uniform(0.8, 1.2)  # noqa: S311  # no secret


class Carrier:
    """One link at work. `notice` hears each change worth telling the site's keeper."""

    def __init__(
        self, fleet: Fleet, agent: AgentChannel, pace: Pace, stopping: threading.Event, notice: Callable[..., None]
    ) -> None:
        self._fleet, self._agent, self._pace = fleet, agent, pace
        self._stopping, self._notice = stopping, notice
        self._joined, self._beaten, self._worked = False, 0.0, 0.0

    def run(self) -> None:
        """Carry until `stopping` is set, then leave. Errors: Refusal KEY_REFUSED, CERTIFICATE_INVALID."""
        failures, unwelcome_since = 0, None
        while not self._stopping.is_set():
            try:
                self._turn()
                failures, unwelcome_since = 0, None
            except Lost as trouble:
                failures += 1
                self._trouble(Code.FEDERATION_UNREACHABLE, str(trouble), first=failures == 1)
                self._stopping.wait(self._pace.retry(failures))
            except NotAdmitted:
                self._joined = False
                unwelcome_since = unwelcome_since or time.monotonic()
                self._trouble(Code.KEY_REFUSED, "not admitted", first=False)
                self._give_up_after(time.monotonic() - unwelcome_since)
                self._stopping.wait(self._pace.retry(2))
        self._leave()

    def _turn(self) -> None:
        if not self._joined:
            self._join()
        self._beat_if_due()
        if (order := self._fleet.next_order()) is not None:
            self._carry(order)
            self._worked = time.monotonic()
        else:
            self._notice(contact=time.time())
            self._stopping.wait(self._pace.poll(time.monotonic() - self._worked))

    def _join(self) -> None:
        self._fleet.join()
        self._joined, self._beaten = True, time.monotonic()
        log.info("joined")
        self._notice(joined=time.time(), contact=time.time(), error=None)
        if (order := self._fleet.unanswered()) is not None:
            self._deliver(order, Code.AGENT_UNAVAILABLE)

    def _carry(self, order: Order) -> None:
        try:
            frame = self._insist(order, lambda: self._fleet.fetch(order))
            reply = self._ask(order, frame)
        except Refusal as refusal:
            reply = refusal.code
        except Unwanted:
            log.info("an order was withdrawn")
            return
        if reply is not None:
            self._deliver(order, reply)

    def _ask(self, order: Order, frame: bytes) -> bytes | Code | None:
        """The agent's reply, the code of why there is none, or None once nobody wants it."""
        answer = self._agent.ask(frame, max(order.left(), 0.0))
        while not self._stopping.is_set() and order.left() > 0:
            reply = answer.wait(min(LEAST_SECONDS, order.left()))
            if reply is not None:
                return reply.code if isinstance(reply, Failure) else reply
            self._sign_of_life()
        answer.abandon()
        return Code.AGENT_UNAVAILABLE if self._stopping.is_set() else None

    def _deliver(self, order: Order, reply: bytes | Code) -> None:
        if isinstance(reply, Code):
            log.warning("an order was answered with %s", reply.value)
            self._notice(error=reply.value)
        parcel = self._fleet.seal(order, reply)
        try:
            self._insist(order, lambda: self._fleet.deliver(parcel))
        except Unwanted:
            log.info("a reply came too late")

    def _insist(self, order: Order, step: Callable[[], T]) -> T:
        """`step`, again after each loss, until the order is worth nothing (Unwanted)."""
        failures = 0
        while True:
            try:
                return step()
            except Lost:
                failures += 1
            if order.left() <= 0 or self._stopping.is_set():
                raise Unwanted
            self._stopping.wait(self._pace.retry(failures))

    def _beat_if_due(self) -> None:
        if time.monotonic() - self._beaten >= self._pace.beat:
            self._fleet.beat()
            self._beaten = time.monotonic()

    def _sign_of_life(self) -> None:
        """A beat while the agent works. A failure waits for the delivery, which insists."""
        try:
            self._beat_if_due()
        except (Lost, NotAdmitted):
            self._beaten = time.monotonic() - self._pace.beat + 1.0

    def _leave(self) -> None:
        if self._joined:
            self._fleet.leave()
        self._notice(joined=None)
        log.info("left")

    def _trouble(self, code: Code, text: str, *, first: bool) -> None:
        if first:
            log.warning("%s: %s", code.value, text)
        self._notice(error=code.value)

    def _give_up_after(self, seconds: float) -> None:
        if seconds >= self._pace.patience:
            raise Refusal(
                Code.KEY_REFUSED,
                "This site was not admitted",
                "its node key is unknown, revoked or used by another link; a wrong clock looks the same",
                "Check the clock, then ask the coordinator to admit the key",
            )
