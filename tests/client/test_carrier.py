"""The loop of a link against a server and an agent that fail in every way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.agent_channel import Failure
from client.carrier import Carrier, Lost, NotAdmitted, Order, Pace, Unwanted
from common.errors import Code, Refusal
from common.status_file import Notice, read_status, write_status

PACE = Pace(fast=0.01, slow=0.02, beat=0.05, longest=0.02, patience=0.3)


class Script:
    """A fleet that plays a script: for each call a list of errors to raise before it works."""

    def __init__(self, orders: list[Order], **errors: list[type[Exception]]) -> None:
        self.orders, self.errors = list(orders), errors
        self.calls: list[str] = []
        self.delivered: list[Any] = []
        self.left_over: Order | None = None
        self.done = threading.Event()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.errors.get(name):
            raise self.errors[name].pop(0)

    def join(self) -> None:
        self._call("join")

    def beat(self) -> None:
        self._call("beat")

    def next_order(self) -> Order | None:
        self._call("next_order")
        if self.orders:
            return self.orders.pop(0)
        self.done.set()
        return None

    def unanswered(self) -> Order | None:
        order, self.left_over = self.left_over, None
        return order

    def fetch(self, order: Order) -> bytes:
        self._call("fetch")
        return bytes(order.ticket)

    def seal(self, order: Order, reply: bytes | Code) -> Any:
        return reply

    def deliver(self, parcel: Any) -> None:
        self._call("deliver")
        self.delivered.append(parcel)

    def leave(self) -> None:
        self._call("leave")


class Echo:
    """An agent that answers after `delay` seconds."""

    def __init__(self, answer: Callable[[bytes], Any] = bytes.upper, delay: float = 0.0) -> None:
        self.answer, self.delay, self.abandoned = answer, delay, False

    def ask(self, frame: bytes, seconds: float) -> Any:
        self._frame, self._ready = frame, time.monotonic() + self.delay
        return self

    def wait(self, seconds: float) -> Any:
        time.sleep(min(seconds, max(0.0, self._ready - time.monotonic())))
        return self.answer(self._frame) if time.monotonic() >= self._ready else None

    def abandon(self) -> None:
        self.abandoned = True


def order(text: bytes = b"order", seconds: float = 5.0) -> Order:
    return Order(ticket=text, seconds=seconds)


def carry(fleet: Script, agent: Any, *, stop_after: float | None = None, notices: list[Any] | None = None) -> None:
    """Run a carrier until the script is over (or for `stop_after` seconds), then stop it."""
    stopping = threading.Event()

    def notice(**news: Any) -> None:
        if notices is not None:
            notices.append(news)

    def stop() -> None:
        fleet.done.wait(5) if stop_after is None else time.sleep(stop_after)
        stopping.set()

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        Carrier(fleet, agent, PACE, stopping, notice).run()
    finally:
        fleet.done.set()
        thread.join()


def test_an_order_is_answered_and_the_fleet_left():
    fleet = Script([order(b"a"), order(b"b")])
    carry(fleet, Echo())
    assert fleet.delivered == [b"A", b"B"]
    assert fleet.calls[0] == "join"
    assert fleet.calls[-1] == "leave"


@pytest.mark.parametrize("call", ["join", "next_order", "fetch", "deliver"])
def test_a_loss_anywhere_costs_a_moment_and_no_reply(call: str):
    fleet = Script([order(b"a")], **{call: [Lost, Lost, Lost]})
    carry(fleet, Echo())
    assert fleet.delivered == [b"A"]


@pytest.mark.parametrize("call", ["fetch", "deliver"])
def test_what_nobody_wants_is_dropped_and_the_next_order_taken(call: str):
    fleet = Script([order(b"a"), order(b"b")], **{call: [Unwanted]})
    carry(fleet, Echo())
    assert fleet.delivered == [b"B"]


def test_the_agents_failure_is_answered_with_its_code():
    fleet = Script([order()])
    carry(fleet, Echo(lambda _: Failure(Code.AGENT_UNAVAILABLE)))
    assert fleet.delivered == [Code.AGENT_UNAVAILABLE]


def test_an_order_that_cannot_be_read_is_answered():
    class Torn(Script):
        def fetch(self, order: Order) -> bytes:
            raise Refusal(Code.MESSAGE_INVALID, "no", "no", "no")

    fleet = Torn([order()])
    carry(fleet, Echo())
    assert fleet.delivered == [Code.MESSAGE_INVALID]


def test_an_answer_after_its_time_is_not_sent():
    fleet, agent = Script([order(seconds=0.2)]), Echo(delay=1.0)
    began = time.monotonic()
    carry(fleet, agent)
    assert fleet.delivered == []
    assert agent.abandoned
    assert time.monotonic() - began < 0.8


def test_a_reply_is_tried_again_only_while_it_is_worth_something():
    fleet = Script([order(seconds=0.2), order(b"b")], deliver=[Lost] * 12)
    carry(fleet, Echo())
    assert fleet.delivered in ([b"B"], [])
    assert 2 <= fleet.calls.count("deliver") <= 26


def test_signs_of_life_go_on_while_the_agent_works():
    fleet = Script([order()], beat=[Lost])
    carry(fleet, Echo(delay=1.6))
    assert fleet.calls.count("beat") >= 2
    assert fleet.delivered == [b"ORDER"]


def test_a_stop_in_the_middle_of_an_order_is_answered_and_quick():
    fleet, agent = Script([order(seconds=60)]), Echo(delay=60)
    began = time.monotonic()
    carry(fleet, agent, stop_after=0.3)
    assert time.monotonic() - began < 1.5
    assert fleet.delivered == [Code.AGENT_UNAVAILABLE]
    assert fleet.calls[-1] == "leave"


def test_an_order_that_an_earlier_link_took_is_answered_at_the_start():
    fleet = Script([])
    fleet.left_over = order(b"old", seconds=1.0)
    carry(fleet, Echo())
    assert fleet.delivered == [Code.AGENT_UNAVAILABLE]


def test_a_key_that_stays_refused_ends_the_link():
    fleet = Script([], join=[NotAdmitted] * 1000)
    with pytest.raises(Refusal) as refused:
        carry(fleet, Echo())
    assert refused.value.code is Code.KEY_REFUSED
    assert "leave" not in fleet.calls


def test_a_key_that_is_refused_for_a_moment_is_patiently_tried():
    fleet = Script([order(b"a")], join=[NotAdmitted])
    carry(fleet, Echo())
    assert fleet.delivered == [b"A"]


def test_a_node_that_is_forgotten_while_it_serves_joins_again():
    fleet = Script([order(b"a")], next_order=[NotAdmitted])
    carry(fleet, Echo())
    assert fleet.calls.count("join") == 2
    assert fleet.delivered == [b"A"]


def test_a_certificate_that_does_not_verify_ends_the_link_at_once():
    class Impostor(Script):
        def join(self) -> None:
            raise Refusal(Code.CERTIFICATE_INVALID, "no", "no", "no")

    with pytest.raises(Refusal) as refused:
        carry(Impostor([]), Echo())
    assert refused.value.code is Code.CERTIFICATE_INVALID


def test_the_keeper_is_told_when_a_link_joins_fails_and_leaves():
    notices: list[Any] = []
    carry(Script([], next_order=[Lost]), Echo(), notices=notices)
    assert any(news.get("joined") for news in notices)
    assert {"error": "FEDERATION_UNREACHABLE"} in notices
    assert notices[-1] == {"joined": None}


@given(st.integers(min_value=0, max_value=10_000), st.floats(min_value=0, max_value=1e9))
def test_the_pace_stays_in_its_bounds(failures: int, idle: float):
    pace = Pace()
    assert 0 < pace.retry(failures) <= 1.2 * pace.longest
    assert pace.fast <= pace.poll(idle) <= pace.slow


def test_a_status_file_is_whole_or_absent(tmp_path: Path):
    path = tmp_path / "deep" / "link.json"
    assert read_status(path) == {}
    write_status(path, {"a": 1})
    assert read_status(path) == {"a": 1}
    assert [found.name for found in path.parent.iterdir()] == ["link.json"]
    path.write_text("[1]")
    assert read_status(path) == {}
    write_status(None, {"a": 1})
    write_status(Path("/proc/none/link.json"), {"a": 1})  # a disk that refuses stops nothing


def test_a_notice_writes_every_change_and_few_contacts(tmp_path: Path):
    path = tmp_path / "link.json"
    notice = Notice(path, joined=None, contact=None)
    notice(joined=1.0, contact=1.0)
    notice(contact=2.0)
    assert json.loads(path.read_text())["contact"] == 1.0
    notice(contact=3.0, joined=None)
    assert json.loads(path.read_text())["contact"] == 3.0
