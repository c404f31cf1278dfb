"""Who takes part in a round, and how long a silent site is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from server.clock import SystemClock
from server.cohort import FINAL, Eligible, Patience, cohort_of, wait_for
from simulations.clock import SimulatedClock

if TYPE_CHECKING:
    from common.work import Work

COHORT = (1, 2, 3, 4)


def silent(patience: Patience, *sites: int) -> None:
    for site in sites:
        patience.note(site, silent=True)


def test_everyone_here_takes_part_who_has_not_refused_for_good() -> None:
    assert tuple(Eligible({3, 1, 2}, {2})) == (1, 3)
    assert tuple(Eligible((), {2})) == ()
    assert tuple(Eligible({3, 1, 2, 4}, {2}, {1, 2, 4, 9})) == (1, 4)


def test_a_site_that_went_silent_is_left_out_for_twice_as_many_rounds_each_time() -> None:
    patience = Patience()
    for pause in (1, 2, 4, 8, 16, 16):
        silent(patience, 4)
        for _ in range(pause):
            assert patience.asked(COHORT, 2) == (1, 2, 3)
        assert patience.asked(COHORT, 2) == COHORT


def test_an_answer_restores_trust() -> None:
    patience = Patience()
    silent(patience, 4)
    silent(patience, 4)
    patience.note(4, silent=False)
    assert patience.asked(COHORT, 2) == COHORT
    silent(patience, 4)
    assert patience.asked(COHORT, 2) == (1, 2, 3)
    assert patience.asked(COHORT, 2) == COHORT


def test_those_who_pause_come_back_when_the_quorum_needs_them() -> None:
    patience = Patience()
    silent(patience, 3, 4)
    assert patience.asked(COHORT, 3) == COHORT


def test_waiting_ends_with_the_quorum_or_with_a_refusal() -> None:
    arriving = iter([{1}, {1, 2}, {1, 2, 3}])
    assert tuple(wait_for(2, lambda: Eligible(next(arriving), (2,)), 5.0, SystemClock(0.0))) == (1, 3)
    with pytest.raises(Refusal, match=r"with 1 sites: the quorum is 2, and 1 sites have refused") as refused:
        wait_for(2, lambda: Eligible({1, 2}, (2,)), 0.01, SystemClock(0.005))
    assert refused.value.code is Code.E_TOO_FEW


def test_waiting_is_by_the_clock_that_is_given() -> None:
    """Must: give up after a simulated day. Must not: spend one."""
    clock = SimulatedClock()
    with pytest.raises(Refusal):
        wait_for(2, lambda: Eligible({1}), 86400.0, clock)
    assert 86400.0 < clock.now() < 86400.0 + 2 * clock.look_seconds
    assert tuple(wait_for(1, lambda: Eligible({1} if clock.now() > 2e5 else ()), 2e5, clock)) == (1,)


def test_only_refusals_that_will_not_change_exclude_a_site() -> None:
    for passing in (Code.SITE_UNREACHABLE, Code.AGENT_BUSY, Code.E_ROUND, Code.E_SIG, Code.INTERNAL, Code.E_TOO_FEW):
        assert passing not in FINAL
    assert {Code.BUDGET_EXHAUSTED, Code.POLICY_PRIVACY, Code.LEDGER_ROLLED_BACK} <= FINAL


class FakeWork:
    """As much of a job as the draw of a cohort reads."""

    def __init__(self, sites: int, **asked: float | None):
        self.job = SimpleNamespace(seed=3, aggregation=SimpleNamespace(**{"cohort": None, "site_rate": None, **asked}))
        self.roster = SimpleNamespace(ids=range(1, sites + 1))


def drawn(work: FakeWork, away: set[int] | None = None, round_number: int = 1) -> tuple[int, ...]:
    eligible = Eligible(work.roster.ids, away or set())
    return cohort_of(cast("Work", work), eligible, ("train", round_number, 0))


def test_without_a_size_everybody_is_asked():
    assert drawn(FakeWork(5)) == (1, 2, 3, 4, 5)


@given(sites=st.integers(1, 60), cohort=st.integers(1, 70), away=st.sets(st.integers(1, 60)))
def test_a_cohort_is_of_its_size_and_of_those_that_are_here(sites: int, cohort: int, away: set[int]):
    """Must: be full while there are sites. Must not: name a site that is away, or one twice."""
    found, here = drawn(FakeWork(sites, cohort=cohort), away), set(range(1, sites + 1)) - away
    assert len(set(found)) == len(found) == min(cohort, len(here))
    assert set(found) <= here
    assert list(found) == sorted(found)


def test_one_site_away_changes_only_its_own_place():
    """Must: keep all others, so that a site that is late moves no dice. Must not: draw the round anew."""
    whole = drawn(FakeWork(1000, cohort=50))
    without = drawn(FakeWork(1000, cohort=50), {whole[7]})
    assert len(set(whole) & set(without)) == 49


def test_rounds_draw_their_own_cohorts_and_the_seed_repeats_them():
    work = FakeWork(1000, cohort=50)
    assert drawn(work) == drawn(work)
    assert drawn(work) != drawn(work, round_number=2)


def test_every_site_has_the_same_chance():
    """Must: ask each of 20 sites in a quarter of 2,000 rounds, within five standard deviations."""
    for work in (FakeWork(20, cohort=5), FakeWork(20, site_rate=0.25)):
        counts = np.zeros(21)
        for round_number in range(2000):
            counts[list(drawn(work, round_number=round_number))] += 1
        assert np.abs(counts[1:] - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_a_cohort_of_a_million_sites_costs_no_walk_through_them():
    """Must not: touch more ids than a few times the cohort."""

    class Counted(Sequence[int]):
        touched = 0

        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, place: Any) -> Any:
            Counted.touched += 1
            return place + 1

        def __contains__(self, site: object) -> bool:
            return True

        def __iter__(self) -> Iterator[int]:
            raise AssertionError("walked through all sites")

    work = FakeWork(1, cohort=1000)
    work.roster.ids = Counted()
    assert len(drawn(work)) == 1000
    assert Counted.touched <= 4000
