"""Labour: nothing is charged that cannot be answered, nothing is worked on that is not charged, nothing twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as altered

import client.holding
import client.trainer
from client.session import open_session
from common.errors import Code, Refusal
from common.messages import (
    Accepted,
    Head,
    LedgerOrder,
    LedgerReply,
    Reported,
)
from common.work import work_of
from tests.worlds import RUN, Desk, close, code_of, desk_of, scenario, under

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


def reads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list that grows with every reading of a site's records."""
    seen: list[object] = []
    real = client.holding.read_records

    def counted(*args: Any) -> Any:
        seen.append(args[0])
        return real(*args)

    monkeypatch.setattr(client.holding, "read_records", counted)
    return seen


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


def test_the_same_attempt_in_another_session_is_refused_at_no_cost_and_the_next_one_is_not(desk: Desk) -> None:
    """Must not: pay for, and give, a second report that could be summed with other sites than the first."""
    assert isinstance(desk.ask(1, desk.work_order()), Reported)
    opened = desk.opened(bytes([1] * 32))
    assert code_of(desk.ask(1, desk.work_order(opened=opened, number=1))) == "E_MODEL"
    assert desk.charges(1) == RESERVED
    assert isinstance(desk.ask(1, desk.work_order(opened=opened, number=2, attempt=1)), Reported)


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


def test_what_the_budget_does_not_afford_is_refused_before_a_record_is_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = reads(monkeypatch)
    session = desk.sessions[1]
    rules = replace(session._policy.now.privacy, max_epsilon=8.0)
    tight = replace(session._policy.now, privacy=replace(rules, max_epsilon=0.5))
    session._holdings._policy = under(tight)  # the keeper lowered the limit after the policy was read
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


def test_a_run_that_cannot_end_within_the_budget_is_declined_before_it_begins(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """Must: tell the site's own keeper what would be missing. Must not: spend what is left, or read a record.

    What was begun is not cut short by this: a single release is still made as long as it fits.
    """
    opened = desk.opened()
    for number in range(3):
        assert isinstance(desk.ask(1, desk.work_order(opened=opened, number=number, round=number + 1)), Reported)
    before = desk.charges(1)
    assert code_of(desk.ask(1, desk.offer())) == "BUDGET_EXHAUSTED"
    assert "3 steps of mode M2 not run" in caplog.text
    assert "left of the site's epsilon of 8" in caplog.text
    assert desk.charges(1) == before
    assert isinstance(desk.ask(1, desk.work_order(opened=opened, number=3, round=4)), Reported)


def test_a_model_that_its_engine_clips_wrongly_costs_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: Any) -> None:
        raise Refusal(Code.MODEL_INVALID, "Model not trained", "its clipped sums are wrong", "Use another model")

    order = desk.work_order()
    monkeypatch.setattr("common.privacy.clipping.choice.check_engine", refusing)
    monkeypatch.setattr("common.privacy.clipping.choice._CHOSEN", {})
    assert code_of(desk.ask(1, order)) == "MODEL_INVALID"
    assert desk.charges(1) == ["OPEN"]


def test_records_are_read_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = reads(monkeypatch)
    opened = desk.opened()
    for number in range(2):
        desk.ask(1, desk.work_order(opened=opened, number=number, round=number + 1))
    assert len(seen) == 1


def test_a_charge_stands_when_the_work_fails(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    order = desk.work_order()
    monkeypatch.setattr("client.craft.gradient_lanes", lambda *_: 1 / 0)
    desk.ask(1, order)
    monkeypatch.undo()
    reply = desk.ask(1, desk.offer())
    assert isinstance(reply, Accepted)
    assert reply.epsilon_spent > 0


def test_replayed_noise_needs_a_seed_of_the_site_and_costs_nothing_without(desk: Desk) -> None:
    session = desk.sessions[1]
    session._labour._settings = replace(session._settings, noise_seed=None)
    assert code_of(desk.ask(1, desk.work_order())) == "POLICY_PRIVACY"
    assert desk.charges(1) == ["OPEN"]


@pytest.mark.parametrize("mode", ["M1", "M2", "none"])
def test_a_model_with_a_fixed_front_sees_the_records_through_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Must: answer two rounds with features that were made once. Must not: make any before the charge."""
    mapped: list[str] = []
    real = client.trainer.seen_through

    def counted(*args: Any) -> Any:
        mapped.append(desk.charges(1)[-1])
        return real(*args)

    monkeypatch.setattr(client.trainer, "seen_through", counted)
    changes = {"job.model": {"name": "logistic", "settings": {"norm": "layer"}}}
    desk = desk_of(scenario(mode, changes), tmp_path / "world")
    opened = desk.opened()
    for number in range(2):
        assert isinstance(desk.ask(1, desk.work_order(opened=opened, number=number, round=1 + number)), Reported)
    assert mapped == ["RESERVE"]
    close(desk)
