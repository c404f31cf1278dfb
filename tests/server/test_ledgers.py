"""A ledger that arrives at the end of a run is believed if it verifies and holds all that was acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as changed

from common.messages import LedgerOrder, LedgerReply, Reported
from common.privacy.entries import head_of
from server.checkpoints import State
from server.ledgers import brought_up_to_date
from tests.worlds import RUN, Desk, close, desk_of, scenario


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    opened = desk_of(scenario("M2", {"job.privacy.noise": "system"}), tmp_path / "federation")
    yield opened
    close(opened)


def worked(desk: Desk, number: int) -> Reported:
    reply = desk.ask(1, desk.work_order(opened=desk.opened(bytes([number]) * 32), round=number, number=0))
    assert isinstance(reply, Reported)
    return reply


def ledger(desk: Desk) -> LedgerReply:
    reply = desk.ask(1, LedgerOrder(run=RUN, job=desk.job))
    assert isinstance(reply, LedgerReply)
    return reply


def cut(reply: LedgerReply, lines: int) -> LedgerReply:
    entries = b"".join(reply.entries.splitlines(keepends=True)[:-lines])
    return changed(reply, entries=entries, head=head_of(entries))


def after(report: Reported) -> State:
    return State(parameters=np.zeros(1, np.float32)).charged(1, report.head, report.epsilon)


def test_a_charge_whose_answer_was_lost_is_counted_in_the_end(desk: Desk):
    """Must: tell the larger epsilon. Must not: let a run look cheaper than its ledgers."""
    told = after(worked(desk, 1))
    lost = worked(desk, 2)
    state = brought_up_to_date(told, desk.work, 1, ledger(desk))
    assert state.heads[1] == lost.head.hex() != told.heads[1]
    assert state.epsilon[1] >= lost.epsilon > told.epsilon[1]


def test_a_site_that_never_answered_has_the_epsilon_of_its_ledger(desk: Desk):
    lost = worked(desk, 1)
    state = brought_up_to_date(State(parameters=np.zeros(1, np.float32)), desk.work, 1, ledger(desk))
    assert state.epsilon[1] >= lost.epsilon > 0


def test_a_ledger_without_an_acknowledged_line_changes_nothing(desk: Desk):
    """Must not: take its shorter head for the acknowledged one, which would hide the cut from every audit."""
    worked(desk, 1)
    told = after(worked(desk, 2))
    assert brought_up_to_date(told, desk.work, 1, cut(ledger(desk), 1)) is told


def test_a_ledger_that_is_damaged_foreign_or_has_another_head_changes_nothing(desk: Desk):
    told = after(worked(desk, 1))
    whole = ledger(desk)
    for other in (
        changed(whole, entries=whole.entries.replace(b'"steps":1', b'"steps":0', 1)),
        changed(whole, entries=b"no ledger"),
        changed(whole, head=bytes(32)),
    ):
        assert brought_up_to_date(told, desk.work, 1, other) is told
    foreign = replace(told, heads={2: told.heads[1]}, epsilon={2: 0.0})
    assert brought_up_to_date(foreign, desk.work, 2, whole) is foreign


def test_an_epsilon_without_bound_stays_so(desk: Desk):
    told = after(worked(desk, 1)).charged(1, worked(desk, 2).head, float("inf"))
    assert brought_up_to_date(told, desk.work, 1, ledger(desk)).epsilon[1] == float("inf")
