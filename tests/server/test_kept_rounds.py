"""What a run keeps after each round: a checkpoint that does not grow, over rounds that nobody may change under it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import Code, Refusal
from common.messages import AnyOrder, WorkOrder
from server.coordinator import run_job
from server.reach import Asked
from tests.server.test_coordinator import Killed, killing, played
from tests.worlds import Desk, Lines, close, desk_of, questions_of, scenario, settings_of


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = desk_of(scenario("M2"), tmp_path / "world")
    yield made
    close(made)


def test_a_world_that_nobody_resumes_leaves_its_result_and_no_checkpoint(desk: Desk, tmp_path: Path) -> None:
    """Must: be the same run, with its history. Must not: wait for the disk after each round."""
    settings = replace(settings_of(desk), durable=False)
    state = run_job(desk.work, Asked(questions_of(desk, Lines(desk))), settings)
    other = desk_of(scenario("M2"), tmp_path / "other")
    assert state.parameters.tobytes() == played(other).parameters.tobytes()
    close(other)
    assert (settings.result / "run.json").exists()
    assert len(list(settings.history.glob("*.f32"))) == 4
    assert not any(path.exists() for path in (settings.checkpoint, settings.live, settings.attempt))


def test_a_checkpoint_does_not_grow_with_the_rounds(desk: Desk) -> None:
    desk.work = replace(desk.work, job=replace(desk.work.job, rounds=6))
    sizes = []

    def noting(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes:
        if isinstance(order, WorkOrder) and site == 1:
            sizes.append(settings_of(desk).checkpoint.stat().st_size)
        return answer()

    played(desk, noting)
    assert len(sizes) >= 6
    assert max(sizes[1:]) - min(sizes[1:]) < 64, "digits of figures alone"


def test_a_run_whose_rounds_were_changed_under_it_is_not_resumed(desk: Desk) -> None:
    with pytest.raises(Killed):
        played(desk, killing(WorkOrder, 3))
    settings = settings_of(desk)
    settings.live.write_bytes(settings.live.read_bytes().replace(b'"round": 1', b'"round": 7'))
    with pytest.raises(Refusal, match="not those that the checkpoint") as refused:
        played(desk, resume=True)
    assert refused.value.code is Code.CONFIG_INVALID
