"""One attempt at a sum: lost sites, forged answers and silence end an attempt at most, never the run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from msgspec.structs import replace as altered

from common.errors import Code, Refusal
from common.frames import pack
from common.messages import (
    AnyOrder,
    AnyReply,
    EnrolOrder,
    Refused,
    Reported,
    Unmasked,
    UnmaskOrder,
    WorkOrder,
)
from tests.attempts import Attempts, forged, losing, unmaskers
from tests.worlds import Desk, close, desk_of, scenario

ROUNDS = itertools.count(0, 1000)  # where each test begins, so that no round is summed twice


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = desk_of(scenario("none", {"job.aggregation.session_rounds": 3}), tmp_path_factory.mktemp("sum") / "world")
    yield made
    close(made)


@pytest.fixture
def attempts(desk: Desk) -> Attempts:
    made = Attempts(desk)
    made.count = next(ROUNDS)
    return made


def test_a_sum_of_all_sites_is_opened(attempts: Attempts) -> None:
    gathered = attempts.next()
    assert gathered.failure is None
    assert gathered.sites == (1, 2, 3)
    assert gathered.sum.count == 3
    assert set(gathered.charges) == set(gathered.notes.sizes) == {1, 2, 3}
    assert gathered.notes.refused == {}


def test_a_session_serves_until_its_numbers_are_used_up(attempts: Attempts) -> None:
    first = [attempts.next() and attempts.sessions() for _ in range(4)]
    assert first[0] == first[1] == first[2] != first[3]


def test_a_site_whose_report_is_lost_is_charged_all_the_same_and_left_out_once(attempts: Attempts) -> None:
    def lost(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        data = answer()  # the site works, and the line breaks after that
        return None if isinstance(order, WorkOrder) and site == 3 else data

    gathered = attempts.next(lost)
    assert gathered.failure is None
    assert gathered.sites == (1, 2)
    assert gathered.notes.refused == {3: Code.SITE_UNREACHABLE}
    attempts.next()
    assert 3 not in attempts.asked(WorkOrder)
    attempts.next()
    assert 3 in attempts.asked(WorkOrder)


def test_too_few_reports_open_nothing_and_keep_their_charges(attempts: Attempts) -> None:
    gathered = attempts.next(losing(WorkOrder, 2, 3))
    assert gathered.failure is Code.E_TOO_FEW
    assert gathered.sites == ()
    assert set(gathered.charges) == {1}
    assert attempts.asked(UnmaskOrder) == []
    with pytest.raises(Refusal) as refused:
        _ = gathered.sum
    assert refused.value.code is Code.E_TOO_FEW
    assert attempts.next().failure is None


def test_a_lost_unmasking_site_ends_the_session_and_the_next_does_without_it(attempts: Attempts) -> None:
    attempts.next()
    lost, before = unmaskers(attempts)[0], attempts.sessions()
    gathered = attempts.next(losing(UnmaskOrder, lost))
    assert gathered.failure is Code.E_HELPER_LOST
    assert gathered.notes.refused[lost] is Code.SITE_UNREACHABLE
    assert set(gathered.charges) == {1, 2, 3}
    assert attempts.asked(UnmaskOrder).count(lost) == 2  # asked once more with the very same set
    again = attempts.next()
    assert again.failure is None
    assert attempts.sessions() != before
    assert lost not in unmaskers(attempts)


def test_an_unmasking_site_that_was_away_a_moment_is_asked_again_with_the_same_set(attempts: Attempts) -> None:
    calls: list[bytes] = []

    def shaky(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        if not isinstance(order, UnmaskOrder) or site != unmaskers(attempts)[0]:
            return answer()
        calls.append(pack(order))
        return None if len(calls) == 1 else answer()

    gathered = attempts.next(shaky)
    assert gathered.failure is None
    assert len(calls) == 2
    assert calls[0] == calls[1]


def test_a_forged_report_counts_for_its_site_only(desk: Desk, attempts: Attempts) -> None:
    def other_vector(reply: AnyReply) -> AnyReply:
        assert isinstance(reply, Reported)
        return altered(reply, report=altered(reply.report, body=bytes(len(reply.report.body))))

    gathered = attempts.next(forged(desk, WorkOrder, other_vector))
    assert gathered.failure is None
    assert gathered.sites == (2, 3)
    assert gathered.notes.refused == {1: Code.E_SIG}
    assert set(gathered.charges) == {1, 2, 3}


def test_a_report_in_another_site_s_name_is_ignored(desk: Desk, attempts: Attempts) -> None:
    def renamed(reply: AnyReply) -> AnyReply:
        assert isinstance(reply, Reported)
        return altered(reply, report=altered(reply.report, site=2))

    gathered = attempts.next(forged(desk, WorkOrder, renamed))
    assert gathered.sites == (2, 3)
    assert gathered.notes.refused == {1: Code.E_SET}


def test_an_answer_of_another_kind_is_a_bad_answer(attempts: Attempts) -> None:
    def refusing(reply: AnyReply) -> AnyReply:
        return Refused(order=reply.order, code="DATA_INVALID", reference="")

    gathered = attempts.next(forged(attempts.desk, WorkOrder, refusing))
    assert gathered.notes.refused == {1: Code.DATA_INVALID}
    assert gathered.sites == (2, 3)


def test_forged_masks_cost_the_attempt_and_their_site_a_place_in_the_next_session(
    desk: Desk, attempts: Attempts
) -> None:
    """A site that spoils the unmasking must not end the run."""

    def spoiled(reply: AnyReply) -> AnyReply:
        assert isinstance(reply, Unmasked)
        return altered(reply, totals=(altered(reply.totals[0], body=bytes(len(reply.totals[0].body))),))

    attempts.next()
    while 1 not in unmaskers(attempts):  # chance decides who unmasks
        attempts.aggregator.sessions.drop()
        attempts.next()
    line = forged(desk, UnmaskOrder, spoiled)
    attempts.aggregator.sessions.next = 1
    gathered = attempts.next(line)
    assert gathered.failure is Code.E_HELPER_LOST
    assert gathered.notes.refused == {1: Code.E_SIG}
    assert attempts.next(line).failure is None
    assert 1 not in unmaskers(attempts)


def test_without_unmasking_sites_no_record_is_worked_on(attempts: Attempts) -> None:
    gathered = attempts.next(losing(EnrolOrder, 1, 2, 3))
    assert gathered.failure is Code.E_TOO_FEW
    assert gathered.charges == {}
    assert attempts.asked(WorkOrder) == []
    assert Code.SITE_UNREACHABLE in gathered.notes.refused.values()


def test_a_session_is_opened_without_those_that_do_not_enrol(attempts: Attempts) -> None:
    gathered = attempts.next(losing(EnrolOrder, 2))
    assert gathered.failure is None
    assert unmaskers(attempts) == (1, 3)


def test_orders_carry_the_heads_that_sites_told(attempts: Attempts) -> None:
    gathered = attempts.next()
    for site, (head, epsilon) in gathered.charges.items():
        attempts.state = attempts.state.charged(site, head, epsilon)
    assert attempts.next().failure is None
    heads = {head.site: head.head for _, order in attempts.seen if isinstance(order, WorkOrder) for head in order.heads}
    assert heads == {site: head for site, (head, _) in gathered.charges.items()}
    attempts.state = replace(attempts.state, heads={1: "ab" * 32})
    assert attempts.next().notes.refused == {1: Code.LEDGER_ROLLED_BACK}


def test_every_site_gets_the_same_order(attempts: Attempts) -> None:
    attempts.next()
    assert len({pack(order) for _, order in attempts.seen if isinstance(order, WorkOrder)}) == 1
