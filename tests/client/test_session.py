"""A session: one sealed answer to one order, a code and no text when it refuses, and no charge for what it refuses."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.session import open_session
from client.site import read_site
from common.errors import Code
from common.frames import pack, unpack
from common.identity import Signer
from common.messages import (
    COORDINATOR,
    LIMIT,
    Accepted,
    AnyReply,
    DealOrder,
    Enrolled,
    EnrolOrder,
    Envelope,
    KeepOrder,
    LedgerOrder,
    Members,
    OfferOrder,
    RecoverOrder,
    Refused,
    Reported,
    Unmasked,
    UnmaskOrder,
    open_reply,
    seal,
)
from common.secagg.statements import member_of
from common.work import work_of
from tests.worlds import RUN, Desk, close, code_of, desk_of, scenario, under


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = desk_of(scenario("M2"), tmp_path / "world")
    yield made
    close(made)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A federation that is only ever refused."""
    made = desk_of(scenario("none"), tmp_path_factory.mktemp("quiet") / "world")
    yield made
    close(made)


def unasked(desk: Desk, data: bytes) -> Refused:
    """The sealed refusal of bytes that are no order."""
    site = desk.work.manifest.site(1)
    reply = open_reply(desk.sessions[1].handle(data), 1, site.identity, bytes(32))
    assert isinstance(reply, Refused)
    return reply


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


def test_keys_and_masks_are_given_for_the_session_of_the_order_s_job_only(desk: Desk) -> None:
    session, _ = desk.opened()
    other = replace(desk.work.job, seed=99).to_bytes()
    assert code_of(desk.ask(session.unmaskers[0], EnrolOrder(run=RUN, job=other, session=session))) == "E_POLICY"
    number = {"task": "train", "number": 0, "session": session, "binding": bytes(32)}
    empty = Members(number=0, binding=bytes(32), members=())
    for order in (
        UnmaskOrder(run=RUN, job=other, task="train", session=session, sets=(empty,)),
        RecoverOrder(run=RUN, job=other, **number, answered=bytes(32), lost=(session.unmaskers[1],)),
        DealOrder(run=RUN, job=other, session=session, boxes=()),
        KeepOrder(run=RUN, job=other, session=session, parcels=()),
    ):
        assert code_of(desk.ask(session.unmaskers[0], order)) == "E_POLICY"


def test_under_rules_without_shares_none_are_dealt_kept_or_released(desk: Desk) -> None:
    session, _ = desk.opened()
    base = {"run": RUN, "job": desk.job, "session": session}
    lost = session.unmaskers[1]
    for order in (
        DealOrder(**base, boxes=()),
        KeepOrder(**base, parcels=()),
        RecoverOrder(**base, task="train", number=0, binding=bytes(32), answered=bytes(32), lost=(lost,)),
    ):
        assert code_of(desk.ask(session.unmaskers[0], order)) == "E_POLICY"


def test_a_sum_below_the_jobs_own_quorum_is_not_unmasked(desk: Desk) -> None:
    """The manifest allows two reports, but this job drew its noise for three: two would carry too little of it."""
    asked = replace(desk.work.job, aggregation=replace(desk.work.job.aggregation, quorum=3))
    thick = replace(desk, work=work_of(asked, desk.work.manifest))
    order = thick.work_order()
    reports = [reply.report for site in (1, 2, 3) if isinstance(reply := thick.ask(site, order), Reported)]
    unmasker, place = order.session.unmaskers[0], 0
    members = tuple(member_of(report, place) for report in reports)
    binding = thick.work.binding(order, np.frombuffer(order.parameters, "<f4"))

    def unmask(count: int) -> AnyReply:
        asked = Members(number=0, binding=binding, members=members[:count])
        fields = {"job": thick.job, "task": "train", "session": order.session}
        return thick.ask(unmasker, UnmaskOrder(run=RUN, sets=(asked,), **fields))

    assert len(members) == 3
    assert code_of(unmask(2)) == "E_SET"
    assert isinstance(unmask(3), Unmasked)


def test_enrolling_again_gives_the_same_keys(desk: Desk) -> None:
    session, keys = desk.opened()
    again = desk.ask(session.unmaskers[0], EnrolOrder(run=RUN, job=desk.job, session=session))
    assert isinstance(again, Enrolled)
    assert again.keys == keys[session.unmaskers[0]]


SECRET = "Ms Doe, born 1950-02-03, HIV positive"


@pytest.mark.parametrize("place", ["reading", "working"])
def test_an_exception_that_quotes_a_record_never_leaves(
    desk: Desk, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise ValueError(f"could not convert string to float: {SECRET!r}")

    target = "client.holding.read_records" if place == "reading" else "client.craft.gradient_lanes"
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


def test_a_task_that_the_policy_does_not_allow_is_refused(desk: Desk) -> None:
    session = desk.sessions[1]
    opened = desk.opened()
    policy = session._policy.now
    session._policy = under(replace(policy, tasks=replace(policy.tasks, allow=("offer", "train"))))
    assert code_of(desk.ask(1, desk.work_order(opened=opened, task="evaluate"))) == "POLICY_TASK"
    assert code_of(desk.ask(1, LedgerOrder(run=RUN, job=desk.job))) == "POLICY_TASK"
    assert code_of(desk.ask(1, desk.offer())) == "POLICY_TASK"  # an offer asks for all that follows
    assert isinstance(desk.ask(1, desk.work_order(opened=opened)), Reported)


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
    assert abs(int(np.unpackbits(data).sum()) - expected) < 6 * np.sqrt(expected)
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


def test_a_policy_that_is_tightened_or_damaged_holds_from_the_next_order_on(tmp_path: Path) -> None:
    """Must: obey the file as it is now. Must not: go on under the rules of the agent's start, or without any."""
    made = desk_of(scenario("none"), tmp_path / "world")
    file = Path(read_site(made.federation.sites[0].settings).policy)
    before = file.read_text()
    opened = made.opened()
    assert isinstance(made.ask(1, made.work_order(opened=opened)), Reported)
    table = tomllib.loads(before)
    file.write_text(tomli_w.dumps(table | {"tasks": {"allow": ["ledger"]}}))
    assert code_of(made.ask(1, made.work_order(opened=opened, round=2, number=1))) == "POLICY_TASK"
    file.write_text("[tasks\nallow =")
    assert code_of(made.ask(1, made.work_order(opened=opened, round=2, number=2))) == "CONFIG_INVALID"
    file.unlink()
    assert code_of(made.ask(1, made.work_order(opened=opened, round=2, number=3))) == "FILE_MISSING"
    file.write_text(tomli_w.dumps(table | {"data": table["data"] | {"min_records": 10_000}}))
    assert code_of(made.ask(1, made.work_order(opened=opened, round=2, number=4))) == "COHORT_TOO_SMALL"
    file.write_text(before)
    assert isinstance(made.ask(1, made.work_order(opened=opened, round=2, number=5)), Reported)
    close(made)
