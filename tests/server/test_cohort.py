"""Who takes part in a round, and how long a silent site is left out."""

from __future__ import annotations

import pytest

from common.errors import Code, Refusal
from server.cohort import FINAL, Patience, choose, wait_for

COHORT = (1, 2, 3, 4)


def silent(patience: Patience, *sites: int) -> None:
    for site in sites:
        patience.note(site, silent=True)


def test_everyone_here_takes_part_who_has_not_refused_for_good() -> None:
    assert choose({3, 1, 2}, {2}) == (1, 3)
    assert choose((), {2}) == ()


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
    assert wait_for(2, lambda: next(arriving), (2,), 5.0, pause=0.0) == (1, 3)
    with pytest.raises(Refusal, match=r"with 1 sites: the quorum is 2, and 1 sites have refused") as refused:
        wait_for(2, lambda: {1, 2}, (2,), 0.01, pause=0.005)
    assert refused.value.code is Code.E_TOO_FEW


def test_only_refusals_that_will_not_change_exclude_a_site() -> None:
    for passing in (Code.SITE_UNREACHABLE, Code.AGENT_BUSY, Code.E_ROUND, Code.E_SIG, Code.INTERNAL, Code.E_TOO_FEW):
        assert passing not in FINAL
    assert {Code.BUDGET_EXHAUSTED, Code.POLICY_PRIVACY, Code.LEDGER_ROLLED_BACK} <= FINAL
