"""A session: one sealed answer to one order, a code and no text when it refuses, and no charge for what it refuses."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as altered

import client.holding
from client.session import open_session
from common.errors import Code
from common.frames import pack, unpack
from common.identity import Signer
from common.messages import (
    COORDINATOR,
    LIMIT,
    Accepted,
    AnyReply,
    Enrolled,
    EnrolOrder,
    Envelope,
    Head,
    LedgerOrder,
    LedgerReply,
    OfferOrder,
    Refused,
    Reported,
    UnmaskOrder,
    open_reply,
    seal,
)
from common.work import work_of
from tests.worlds import RUN, Desk, close, desk_of, scenario

RESERVED = ["OPEN", "RESERVE", "SETTLE"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = desk_of(scenario("M2"), tmp_path / "world")
    yield made
    close(made)


@pytest.fixture
def plain_desk(tmp_path: Path) -> Iterator[Desk]:
    made = desk_of(scenario("none"), tmp_path / "world")
    yield made
    close(made)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A federation that is only ever refused."""
    made = desk_of(scenario("none"), tmp_path_factory.mktemp("quiet") / "world")
    yield made
    close(made)


def code_of(reply: AnyReply) -> str:
    assert isinstance(reply, Refused), reply
    return reply.code


def unasked(desk: Desk, data: bytes) -> Refused:
    """The sealed refusal of bytes that are no order."""
    site = desk.work.manifest.site(1)
    reply = open_reply(desk.sessions[1].handle(data), 1, site.identity, bytes(32))
    assert isinstance(reply, Refused)
    return reply


def reads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list that grows with every reading of a site's records."""
    seen: list[object] = []
    real = client.holding.read_records

    def counted(*args: Any) -> Any:
        seen.append(args[0])
        return real(*args)

    monkeypatch.setattr(client.holding, "read_records", counted)
    return seen


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_get_a_sealed_refusal(quiet: Desk, data: bytes) -> None:
    for frame in (data, b"HF\x01" + data, seal(COORDINATOR, quiet.offer(), Signer.generate())):
        reply = unasked(quiet, frame)
        assert reply.code in ("MESSAGE_INVALID", "MESSAGE_VERSION", "MESSAGE_TOO_LARGE", "SENDER_UNKNOWN", "E_SIG")
        assert len(reply.reference) == 12


@given(st.binary(max_size=120))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_order_with_any_bytes_for_a_job_gets_a_sealed_refusal(quiet: Desk, job: bytes) -> None:
    assert code_of(quiet.ask(1, OfferOrder(run=RUN, job=job))) == "CONFIG_INVALID"


def test_an_offer_is_accepted_at_no_cost(desk: Desk) -> None:
    reply = desk.ask(1, desk.offer())
    assert isinstance(reply, Accepted)
    assert (reply.epsilon_spent, reply.epsilon_limit) == (0.0, 8.0)
    assert desk.charges(1) == ["OPEN"]


def test_a_report_is_charged_and_says_what_the_ledger_holds(desk: Desk) -> None:
    reply = desk.ask(1, desk.work_order())
    assert isinstance(reply, Reported)
    assert 0 < reply.epsilon < 8
    assert desk.charges(1) == RESERVED
    told = desk.ask(1, LedgerOrder(run=RUN, job=desk.job))
    assert isinstance(told, LedgerReply)
    assert told.head == reply.head
    assert len(told.entries.splitlines()) == 3


def test_an_update_without_noise_costs_an_infinite_epsilon(plain_desk: Desk) -> None:
    reply = plain_desk.ask(1, plain_desk.work_order())
    assert isinstance(reply, Reported)
    assert reply.epsilon == math.inf


def test_a_repeated_order_gets_the_same_bytes_for_nothing(desk: Desk) -> None:
    order = desk.work_order()
    first = desk.sent(1, order)
    assert desk.sent(1, order) == first
    assert desk.charges(1) == RESERVED


def test_a_repeat_after_a_restart_gets_the_same_bytes_too(desk: Desk) -> None:
    order = desk.work_order()
    first = desk.sent(1, order)
    desk.sessions[1].close()
    desk.sessions[1] = open_session(desk.federation.sites[0].settings)
    assert desk.sent(1, order) == first
    assert desk.charges(1) == RESERVED


@pytest.mark.parametrize(
    "change", [{"round": 2}, {"attempt": 1}, {"task": "evaluate"}, {"run": bytes([1]) * 16}], ids=str
)
def test_a_second_order_under_one_number_is_refused_at_no_cost(desk: Desk, change: dict[str, Any]) -> None:
    opened = desk.opened()
    assert isinstance(desk.ask(1, desk.work_order(opened=opened)), Reported)
    assert code_of(desk.ask(1, desk.work_order(opened=opened, **change))) == "E_ROUND"
    assert desk.charges(1) == RESERVED


def test_a_ledger_that_lacks_an_acknowledged_entry_is_not_used(desk: Desk) -> None:
    order = desk.work_order(heads=(Head(site=2, head=bytes(32)), Head(site=1, head=bytes([1]) * 32)))
    assert code_of(desk.ask(1, order)) == "LEDGER_ROLLED_BACK"
    assert desk.charges(1) == ["OPEN"]
    reply = desk.ask(1, desk.offer())
    assert isinstance(reply, Accepted)
    assert isinstance(desk.ask(1, desk.work_order(heads=(Head(site=1, head=reply.head),))), Reported)


def spoiled(desk: Desk, how: str) -> Any:
    """An order to train in which one thing is wrong."""
    order = desk.work_order()
    other = work_of(replace(desk.work.job, seed=99), desk.work.manifest).job.to_bytes()
    size = len(order.parameters)
    changes: dict[str, dict[str, Any]] = {
        "manifest": {"session": altered(order.session, manifest=bytes(32))},
        "job": {"job": other},
        "session": {"session": altered(order.session, job=bytes(32))},
        "keys missing": {"keys": ()},
        "keys of another number": {"number": 1},
        "keys forged": {"keys": tuple(altered(key, signature=bytes(64)) for key in order.keys)},
        "parameters short": {"parameters": order.parameters[:-4]},
        "parameters odd": {"parameters": order.parameters[:-1]},
        "parameters none": {"parameters": b""},
        "parameters not finite": {"parameters": np.full(size // 4, np.nan, "<f4").tobytes()},
    }
    return altered(order, **changes[how])


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("manifest", "E_MANIFEST"),
        ("job", "E_POLICY"),
        ("session", "E_POLICY"),
        ("keys missing", "E_KEY"),
        ("keys of another number", "E_KEY"),
        ("keys forged", "E_SIG"),
        ("parameters short", "UPDATE_INVALID"),
        ("parameters odd", "UPDATE_INVALID"),
        ("parameters none", "UPDATE_INVALID"),
        ("parameters not finite", "UPDATE_INVALID"),
    ],
)
def test_an_order_that_cannot_be_answered_costs_nothing(desk: Desk, how: str, code: str) -> None:
    assert code_of(desk.ask(1, spoiled(desk, how))) == code
    assert desk.charges(1) == ["OPEN"]


def test_keys_and_masks_are_given_for_the_session_of_the_order_s_job_only(desk: Desk) -> None:
    session, _ = desk.opened()
    other = replace(desk.work.job, seed=99).to_bytes()
    assert code_of(desk.ask(session.unmaskers[0], EnrolOrder(run=RUN, job=other, session=session))) == "E_POLICY"
    order = UnmaskOrder(run=RUN, job=other, task="train", number=0, session=session, binding=bytes(32), members=())
    assert code_of(desk.ask(session.unmaskers[0], order)) == "E_POLICY"


def test_enrolling_again_gives_the_same_keys(desk: Desk) -> None:
    session, keys = desk.opened()
    again = desk.ask(session.unmaskers[0], EnrolOrder(run=RUN, job=desk.job, session=session))
    assert isinstance(again, Enrolled)
    assert again.keys == keys[session.unmaskers[0]]


def test_what_the_budget_does_not_afford_is_refused_before_a_record_is_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = reads(monkeypatch)
    session = desk.sessions[1]
    rules = replace(session._policy.privacy, max_epsilon=8.0)
    tight = replace(session._policy, privacy=replace(rules, max_epsilon=0.5))
    session._holdings._policy = tight  # the keeper lowered the limit after the policy was read
    assert code_of(desk.ask(1, desk.work_order())) == "BUDGET_EXHAUSTED"
    assert code_of(desk.ask(1, desk.offer())) == "BUDGET_EXHAUSTED"
    assert seen == []
    assert desk.charges(1) == ["OPEN"]


def test_the_budget_ends_after_the_planned_releases(desk: Desk) -> None:
    """Three rounds and two spare attempts are planned: the sixth release is refused, whatever the order says."""
    opened = desk.opened()
    for number in range(5):
        assert isinstance(desk.ask(1, desk.work_order(opened=opened, number=number, round=number + 1)), Reported)
    before = desk.charges(1)
    assert code_of(desk.ask(1, desk.work_order(opened=opened, number=5, round=6))) == "BUDGET_EXHAUSTED"
    assert desk.charges(1) == before


def test_records_are_read_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = reads(monkeypatch)
    opened = desk.opened()
    for number in range(2):
        desk.ask(1, desk.work_order(opened=opened, number=number, round=number + 1))
    assert len(seen) == 1


SECRET = "Ms Doe, born 1950-02-03, HIV positive"


@pytest.mark.parametrize("place", ["reading", "working"])
def test_an_exception_that_quotes_a_record_never_leaves(
    desk: Desk, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise ValueError(f"could not convert string to float: {SECRET!r}")

    target = "client.holding.read_records" if place == "reading" else "client.labour.gradient_lanes"
    order = desk.work_order()
    monkeypatch.setattr(target, failing)
    with caplog.at_level(logging.WARNING, "client"):
        data = desk.sent(1, order)
    assert b"Doe" not in data
    assert b"1950" not in data
    reply = unpack(AnyReply, unpack(Envelope, data, LIMIT).body, LIMIT)  # type: ignore[arg-type]  # a union is no type
    assert isinstance(reply, Refused)
    assert reply.code == "INTERNAL"
    assert reply.reference in caplog.text  # by which the keeper finds it in the site's own log
    assert desk.charges(1) == (["OPEN"] if place == "reading" else ["OPEN", "RESERVE", "ABORT"])


def test_a_charge_stands_when_the_work_fails(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    order = desk.work_order()
    monkeypatch.setattr("client.labour.gradient_lanes", lambda *_: 1 / 0)
    desk.ask(1, order)
    monkeypatch.undo()
    reply = desk.ask(1, desk.offer())
    assert isinstance(reply, Accepted)
    assert reply.epsilon_spent > 0


def test_a_task_that_the_policy_does_not_allow_is_refused(desk: Desk) -> None:
    session = desk.sessions[1]
    opened = desk.opened()
    session._policy = replace(session._policy, tasks=replace(session._policy.tasks, allow=("offer", "train")))
    assert code_of(desk.ask(1, desk.work_order(opened=opened, task="evaluate"))) == "POLICY_TASK"
    assert code_of(desk.ask(1, LedgerOrder(run=RUN, job=desk.job))) == "POLICY_TASK"
    assert code_of(desk.ask(1, desk.offer())) == "POLICY_TASK"  # an offer asks for all that follows
    assert isinstance(desk.ask(1, desk.work_order(opened=opened)), Reported)


def test_replayed_noise_needs_a_seed_of_the_site_and_costs_nothing_without(desk: Desk) -> None:
    session = desk.sessions[1]
    session._labour._settings = replace(session._settings, noise_seed=None)
    assert code_of(desk.ask(1, desk.work_order())) == "POLICY_PRIVACY"
    assert desk.charges(1) == ["OPEN"]


def test_a_refusal_of_nothing_in_particular_is_sealed(quiet: Desk) -> None:
    identity = quiet.work.manifest.site(1).identity
    reply = open_reply(quiet.sessions[1].refuse(Code.AGENT_BUSY), 1, identity, bytes(32))
    assert code_of(reply) == "AGENT_BUSY"


def test_no_reply_holds_a_count_a_metric_or_a_text(desk: Desk) -> None:
    """Everything that leaves with a report is its masked vector, keys, signatures, an epsilon and a head."""
    reply = desk.ask(1, desk.work_order())
    assert isinstance(reply, Reported)
    assert set(reply.__struct_fields__) == {"order", "report", "epsilon", "head"}
    assert set(reply.report.__struct_fields__) == {"site", "number", "exchange", "ciphertexts", "body", "signature"}
    data = np.frombuffer(reply.report.body, np.uint8)
    expected = data.size * 4  # bits set in uniform bytes
    assert abs(np.unpackbits(data).sum() - expected) < 6 * np.sqrt(expected)
    assert b"clinic" not in pack(reply)


def test_a_site_whose_manifest_gives_its_key_another_id_does_not_open(desk: Desk) -> None:
    path = desk.federation.sites[0].settings
    desk.sessions.pop(1).close()
    path.write_text(path.read_text().replace("id = 1", "id = 2"))
    with pytest.raises(Exception, match="another id than 2") as refused:
        open_session(path)
    assert refused.value.code is Code.E_MANIFEST  # type: ignore[attr-defined]
    path.write_text(path.read_text().replace("id = 2", "id = 1"))
    with open_session(path) as session:  # the key store was let go
        assert session(b"")
