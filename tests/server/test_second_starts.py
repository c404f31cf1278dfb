"""A job that runs again, and a run that is resumed after its sites were mended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import Refusal
from common.messages import AnyOrder, WorkOrder
from server.coordinator import run_job
from server.reach import Asked
from tests.server.test_coordinator import played
from tests.worlds import close, desk_of, questions_of, scenario, settings_of, under


@pytest.mark.parametrize("protocol", ["alm", "bonawitz"])
def test_an_unchanged_job_runs_again_without_a_lost_attempt(tmp_path: Path, protocol: str) -> None:
    """Its sums are bound to the run, so that no site takes them for those of the first run, opened before."""
    desk = desk_of(scenario("none", {"job.aggregation.protocol": protocol, "job.rounds": 2}), tmp_path / "world")
    first = settings_of(desk)
    for settings in (first, replace(first, state=first.state.with_name("again"))):
        state = run_job(desk.work, Asked(questions_of(desk)), settings)
        assert [row["refusals"] for row in state.rounds] == [[], []]
        assert not any(state.spent.values())
    close(desk)


def test_a_site_that_refused_for_good_is_asked_again_by_a_run_that_is_resumed(tmp_path: Path) -> None:
    """Must: name who refused and why; take back whoever was mended. Must not: repeat the old reason as a new one."""
    desk = desk_of(scenario("none", {"job.aggregation.quorum": 3}), tmp_path / "world")
    session = desk.sessions[2]
    allowed = session._policy.now

    def line(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        if isinstance(order, WorkOrder) and order.round == 2:
            session._policy = under(replace(allowed, tasks=replace(allowed.tasks, allow=())))
        return answer()

    with pytest.raises(Refusal, match="clinic-b POLICY_TASK") as refused:
        played(desk, line)
    assert "asks them again" in refused.value.do
    session._policy = under(allowed)
    state = played(desk, resume=True)
    assert [row["sites"] for row in state.rounds] == [["clinic-a", "clinic-b", "clinic-c"]] * 3
    assert state.excluded == {}
    close(desk)
