"""Unmasking sites lost in a live round: the sum is opened without them, as long as the rules allow for so many."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as altered

from common.errors import Code
from common.messages import (
    AnyOrder,
    AnyReply,
    DealOrder,
    Dealt,
    EnrolOrder,
    KeepOrder,
    Kept,
    RecoverOrder,
    Released,
    UnmaskOrder,
    WorkOrder,
)
from server.aggregation import Gathered
from tests.attempts import Attempts, forged, losing, unmaskers
from tests.worlds import Desk, Line, close, desk_of, scenario

ROUNDS = itertools.count(0, 1000)  # where each test begins, so that no round is summed twice


def world(sites: int, unmasking: int, lost: int, folder: Path) -> Desk:
    changes = {
        "world.partition.sites": sites,
        "world.partition.minimum": 20,
        "world.unmaskers": unmasking,
        "world.lost_max": lost,
        "job.aggregation.session_rounds": 4,
        "job.aggregation.quorum": 3,
    }
    return desk_of(scenario("none", changes), folder / f"{sites}-{unmasking}-{lost}")


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Six sites, of which five unmask and one may be lost."""
    made = world(6, 5, 1, tmp_path_factory.mktemp("six"))
    yield made
    close(made)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Five sites that all unmask: a lost one cannot be replaced."""
    made = world(5, 5, 1, tmp_path_factory.mktemp("five"))
    yield made
    close(made)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Seven sites that all unmask, of which two may be lost; five shares of six are enough for one."""
    made = world(7, 7, 2, tmp_path_factory.mktemp("seven"))
    yield made
    close(made)


def begun(desk: Desk) -> Attempts:
    """Attempts with a session in force."""
    made = Attempts(desk)
    made.count = next(ROUNDS)
    assert made.next().failure is None
    return made


def values(gathered: Gathered) -> np.ndarray:
    return np.concatenate([gathered.sum.values, gathered.sum.extras])


def test_the_sum_is_the_same_in_every_bit_whether_an_unmasking_site_was_lost_or_not(five: Desk, tmp_path: Path) -> None:
    attempts, twin = begun(five), Attempts(world(5, 5, 1, tmp_path))
    twin.count = attempts.count
    lost = 3
    gathered = attempts.next(losing(UnmaskOrder, lost))
    assert gathered.failure is None
    assert gathered.sites == (1, 2, 3, 4, 5)
    assert gathered.notes.refused == {lost: Code.SITE_UNREACHABLE}
    assert attempts.asked(UnmaskOrder).count(lost) == 2  # asked once more before it is given up
    assert sorted(attempts.asked(RecoverOrder)) == [1, 2, 4, 5]
    np.testing.assert_array_equal(values(gathered), values(twin.next()))
    close(twin.desk)


def test_a_session_whose_lost_site_cannot_be_replaced_goes_on_and_does_not_wait_for_it(five: Desk) -> None:
    attempts = begun(five)
    before = attempts.sessions()
    attempts.next(losing(UnmaskOrder, 2))
    gathered = attempts.next()
    assert gathered.failure is None
    assert gathered.sites == (1, 3, 4, 5)
    assert attempts.sessions() == before
    assert 2 not in attempts.asked(WorkOrder) + attempts.asked(UnmaskOrder)
    assert len(attempts.asked(RecoverOrder)) == 4
    back = attempts.next()
    assert (back.failure, back.sites) == (None, (1, 2, 3, 4, 5))
    assert attempts.sessions() == before
    assert attempts.asked(RecoverOrder) == []


def test_a_lost_site_that_can_be_replaced_is_left_out_of_a_new_session(six: Desk) -> None:
    attempts = begun(six)
    lost, before = unmaskers(attempts)[0], attempts.sessions()
    assert attempts.next(losing(UnmaskOrder, lost)).failure is None
    assert attempts.sessions() == before
    assert attempts.next().failure is None
    assert attempts.sessions() != before
    assert lost not in unmaskers(attempts)


def test_a_site_whose_answer_was_lost_is_recovered_and_what_it_said_is_not_counted_twice(five: Desk) -> None:
    """It worked, its line broke: its masks are taken away once."""

    def broken(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        data = answer()
        return None if isinstance(order, UnmaskOrder) and site == 4 else data

    attempts = begun(five)
    gathered = attempts.next(broken)
    assert (gathered.failure, gathered.sum.count) == (None, 5)


def test_more_lost_sites_than_the_rules_allow_end_the_attempt_and_the_session(five: Desk) -> None:
    attempts = begun(five)
    gathered = attempts.next(losing(UnmaskOrder, 1, 2))
    assert gathered.failure is Code.E_HELPER_LOST
    assert attempts.asked(RecoverOrder) == []
    assert attempts.aggregator.sessions.opening is None
    assert set(gathered.charges) == {1, 2, 3, 4, 5}


def test_a_holder_that_is_lost_as_well_ends_the_attempt(five: Desk) -> None:
    attempts = begun(five)
    both = cutting({UnmaskOrder: {1}, RecoverOrder: {2}})
    gathered = attempts.next(both)
    assert gathered.failure is Code.E_HELPER_LOST
    assert attempts.asked(RecoverOrder).count(2) == 2
    assert gathered.notes.refused == dict.fromkeys((1, 2), Code.SITE_UNREACHABLE)


def cutting(lost: dict[type[AnyOrder], set[int]]) -> Line:
    return lambda site, order, answer: None if site in lost.get(type(order), set()) else answer()


def test_a_holder_that_was_away_a_moment_is_asked_again_with_the_same_lost_site(five: Desk) -> None:
    attempts, calls = begun(five), list[AnyOrder]()

    def shaky(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        if isinstance(order, UnmaskOrder) and site == 1:
            return None
        if isinstance(order, RecoverOrder) and site == 3:
            calls.append(order)
            return answer() and None if len(calls) == 1 else answer()
        return answer()

    assert attempts.next(shaky).failure is None
    assert calls[0] == calls[1]


def test_two_lost_sites_are_recovered_where_the_rules_allow_two(seven: Desk) -> None:
    attempts = begun(seven)
    gathered = attempts.next(losing(UnmaskOrder, 2, 6))
    assert (gathered.failure, gathered.sum.count) == (None, 7)


def false_share(reply: AnyReply) -> AnyReply:
    assert isinstance(reply, Released)
    return altered(reply, release=altered(reply.release, shares=(bytes(33),) * len(reply.release.shares)))


def test_a_forged_release_is_named_and_done_without(seven: Desk) -> None:
    attempts = begun(seven)
    forging = forged(seven, RecoverOrder, false_share, liar=1)

    def line(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        return None if isinstance(order, UnmaskOrder) and site == 5 else forging(site, order, answer)

    gathered = attempts.next(line)
    assert gathered.failure is None
    assert gathered.notes.refused == {1: Code.E_SIG, 5: Code.SITE_UNREACHABLE}


def spoiled_parcel(reply: AnyReply) -> AnyReply:
    assert isinstance(reply, Dealt)
    return altered(reply, parcels=reply.parcels[::-1])


def quarrel(reply: AnyReply) -> AnyReply:
    assert isinstance(reply, Kept)
    return altered(reply, bad=(3,))


OBSTACLES: list[tuple[str, Callable[[Desk], Line], set[int], dict[int, Code]]] = [
    ("does not enrol", lambda desk: losing(EnrolOrder, 1), {1}, {1: Code.SITE_UNREACHABLE}),
    ("does not deal", lambda desk: losing(DealOrder, 1), {1}, {1: Code.SITE_UNREACHABLE}),
    ("does not keep", lambda desk: losing(KeepOrder, 1), {1}, {1: Code.SITE_UNREACHABLE}),
    ("deals falsely", lambda desk: forged(desk, DealOrder, spoiled_parcel), {1}, {1: Code.E_SHARE}),
]


@pytest.mark.parametrize(
    ("obstacle", "out", "codes"), [case[1:] for case in OBSTACLES], ids=[case[0] for case in OBSTACLES]
)
def test_a_session_is_opened_without_a_site_that(
    six: Desk, obstacle: Callable[[Desk], Line], out: set[int], codes: dict[int, Code]
) -> None:
    for _ in range(9):  # chance decides who unmasks
        attempts = Attempts(six)
        attempts.count = next(ROUNDS)
        gathered = attempts.next(obstacle(six))
        assert gathered.failure is None
        if gathered.notes.refused:
            break
    assert not out & set(unmaskers(attempts))
    assert gathered.notes.refused.items() >= codes.items()


def test_a_quarrel_over_shares_costs_both_their_place(tmp_path: Path) -> None:
    desk = world(7, 5, 1, tmp_path)
    for _ in range(20):  # chance decides who unmasks
        attempts = Attempts(desk)
        attempts.count = next(ROUNDS)
        gathered = attempts.next(forged(desk, KeepOrder, quarrel))
        if Code.E_SHARE in gathered.notes.refused.values():
            break
    assert gathered.failure is None
    assert gathered.notes.refused == {1: Code.E_SHARE, 3: Code.E_SHARE}
    assert not {1, 3} & set(unmaskers(attempts))
    close(desk)


def test_a_holder_caught_with_a_false_share_unmasks_no_more_while_others_can(tmp_path: Path) -> None:
    """Must: go on summing what it reports. Must not: count on its shares again, however well it behaves in between."""
    desk = world(7, 5, 1, tmp_path)
    attempts = begun(desk)
    liar, lost = unmaskers(attempts)[0], unmaskers(attempts)[1]
    lying = forged(desk, RecoverOrder, false_share, liar)

    def line(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        return None if isinstance(order, UnmaskOrder) and site == lost else lying(site, order, answer)

    caught = attempts.next(line)
    assert caught.notes.refused[liar] in (Code.E_SHARE, Code.E_SIG)
    for _ in range(6):
        gathered = attempts.next()
        assert gathered.failure is None
        assert liar in gathered.sites
        assert liar not in unmaskers(attempts)
    close(desk)
