"""Rounds of grouped sums: each group has its own, none is seen alone, and a lying site spoils one group at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as altered

import client.labour
from common.errors import Code, Refusal
from common.frames import pack
from common.messages import AnyOrder, RecoverOrder, Reported, Unmasked, UnmaskOrder, WorkOrder
from common.secagg.codec import RangeCodec
from common.work import update_of
from server.checkpoints import load_checkpoint, save_checkpoint
from server.live_rounds import LiveRounds
from server.rounds import evaluate, play
from simulations.world import simulate
from tests.attempts import Attempts, forged, losing, unmaskers
from tests.server.test_rounds import Play
from tests.worlds import Desk, close, code_of, desk_of, scenario

LIAR, BOUND = 4, 2.0
GROUPED: dict[str, Any] = {
    "world.partition.sites": 6,
    "job.aggregation.strategy": "median",
    "job.aggregation.settings": {"liars": 1},
    "job.aggregation.groups": 3,
}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = desk_of(scenario("none", GROUPED), tmp_path / "world")
    yield made
    close(made)


def groups_of(attempts: Attempts) -> dict[int, set[int]]:
    """Sites of the last attempt by the number that they were to mask for."""
    found: dict[int, set[int]] = {}
    for site, order in attempts.seen:
        if isinstance(order, WorkOrder):
            found.setdefault(order.number, set()).add(site)
    return found


def test_each_group_has_a_sum_of_its_own(desk: Desk) -> None:
    """Must: open three sums of two sites, whose total is the sum of all. Must not: put a site into two groups."""
    attempts = Attempts(desk)
    gathered = attempts.next()
    assert gathered.failure is None
    assert [len(part.sites) for part in gathered.parts] == [2, 2, 2]
    assert gathered.sites == (1, 2, 3, 4, 5, 6)
    assert [part.sum.count for part in gathered.parts] == [2, 2, 2]
    assert {number: tuple(sorted(group)) for number, group in groups_of(attempts).items()} == {
        number: part.sites for number, part in enumerate(gathered.parts)
    }
    assert gathered.sum.count == 6
    assert (gathered.sum.values == sum(part.sum.values for part in gathered.parts)).all()


def test_unmasking_all_groups_takes_one_order_a_site(desk: Desk) -> None:
    attempts = Attempts(desk)
    attempts.next()
    assert sorted(attempts.asked(UnmaskOrder)) == sorted(unmaskers(attempts))
    assert all(len(order.sets) == 3 for _, order in attempts.seen if isinstance(order, UnmaskOrder))


def test_an_attempt_begins_at_a_multiple_of_the_groups(desk: Desk) -> None:
    attempts = Attempts(desk)
    numbers = [attempts.next() and sorted(groups_of(attempts)) for _ in range(5)]
    assert numbers == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14]]
    before = attempts.sessions()
    attempts.next()  # sixteen numbers hold five attempts
    assert (sorted(groups_of(attempts)), attempts.sessions() != before) == ([0, 1, 2], True)


def test_groups_change_from_attempt_to_attempt(desk: Desk) -> None:
    attempts = Attempts(desk)
    drawn = [frozenset(map(frozenset, groups_of(attempts).values())) for _ in range(4) if attempts.next()]
    assert len(set(drawn)) > 1


def test_a_group_that_lost_a_site_is_left_out_and_too_few_groups_are_no_round(desk: Desk) -> None:
    attempts = Attempts(desk)
    gathered = attempts.next(losing(WorkOrder, 5))
    assert [len(part.sites) for part in gathered.parts] == [2, 2]
    assert gathered.notes.refused == {5: Code.SITE_UNREACHABLE}
    assert set(gathered.charges) == {1, 2, 3, 4, 6}
    made = Play(desk)  # two groups cannot outvote a liar
    made.lines.line = losing(WorkOrder, 5)
    made.state = replace(made.state, spent={"train": desk.work.spare("train")}, rounds=({"round": 1},))
    with pytest.raises(Refusal, match="E_TOO_FEW"):
        play(made.table, made.state)


def test_a_repeated_order_gets_the_same_masks_for_every_group(desk: Desk) -> None:
    """An answer that was lost on the way must not cost the groups before the last their sums."""
    attempts, lost = Attempts(desk), list[bytes]()

    def shaky(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        data = answer()
        if isinstance(order, UnmaskOrder) and site == unmaskers(attempts)[0]:
            lost.append(pack(order))
            return None if len(lost) == 1 else data
        return data

    gathered = attempts.next(shaky)
    assert (gathered.failure, len(gathered.parts)) == (None, 3)
    assert lost[0] == lost[1]


def test_sets_of_two_attempts_or_out_of_order_are_refused(desk: Desk) -> None:
    attempts = Attempts(desk)
    attempts.next()
    site, order = next((site, order) for site, order in attempts.seen if isinstance(order, UnmaskOrder))
    later = altered(order.sets[0], number=3)
    for sets in (order.sets[::-1], (*order.sets, later), (order.sets[0], order.sets[0])):
        assert code_of(desk.ask(site, altered(order, sets=sets))) == "E_SET"
    assert isinstance(desk.ask(site, order), Unmasked)


def test_a_report_of_one_group_cannot_be_summed_with_another(desk: Desk) -> None:
    """Two sites of different groups sign different contexts: neither group takes the other's report."""
    attempts, kept = Attempts(desk), dict[int, Reported]()

    def swapped(reply: Any) -> Any:
        kept[0] = reply
        return altered(reply, report=altered(reply.report, number=(reply.report.number + 1) % 3))

    gathered = attempts.next(forged(desk, WorkOrder, swapped))
    assert gathered.notes.refused == {1: Code.E_ROUND}
    assert 1 not in gathered.sites


def test_a_number_for_a_group_that_the_task_has_not_is_refused_at_no_cost(desk: Desk) -> None:
    """Counts are one sum: a second group of them would be a second answer to the same question."""
    for number, task, fits in (
        (1, "evaluate", False),
        (2, "evaluate", False),
        (0, "evaluate", True),
        (4, "train", True),
    ):
        reply = desk.ask(1, desk.work_order(opened=desk.opened(), number=number, task=task))
        assert isinstance(reply, Reported) if fits else code_of(reply) == "E_ROUND"
    assert desk.charges(1) == ["OPEN", *["RESERVE", "SETTLE"] * 2]


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [("median", {}), ("trimmed-mean", {"pre": ["nnm"]}), ("geometric-median", {"pre": ["arc"]}), ("mda", {})],
)
def test_one_lying_site_does_not_move_the_model_past_the_honest(
    strategy: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"job.aggregation.strategy": strategy, "job.aggregation.settings": {"liars": 1, **settings}}
    desk = desk_of(scenario("none", {**GROUPED, **chosen}), tmp_path / "world")
    made = Play(desk)
    honest = client.labour.Labour._trained

    def trained(self: Any, order: WorkOrder, work: Any, paid: Any, noise: Any) -> Any:
        release = honest(self, order, work, paid, noise)
        if self._settings.id == LIAR:
            release.lanes[:] = BOUND
        return release

    monkeypatch.setattr(client.labour.Labour, "_trained", trained)
    state = play(made.table, made.state)
    change = state.parameters - made.state.parameters
    assert np.abs(change).max() < 0.4 * BOUND  # a mean of its group alone moves by half of the bound
    assert [len(group) for group in state.rounds[0]["groups"]] == [2, 2, 2]
    close(desk)


def test_a_lost_unmasking_site_is_recovered_for_every_group(tmp_path: Path) -> None:
    changes = {**GROUPED, "world.partition.sites": 7, "world.unmaskers": 5, "world.lost_max": 1}
    desk = desk_of(scenario("none", changes), tmp_path / "world")
    attempts = Attempts(desk)
    attempts.next()
    lost = unmaskers(attempts)[0]
    gathered = attempts.next(losing(UnmaskOrder, lost))
    assert (gathered.failure, len(gathered.parts)) == (None, 3)
    assert len({order.number for _, order in attempts.seen if isinstance(order, RecoverOrder)}) == 3
    close(desk)


def test_counts_are_one_sum_over_all_sites(tmp_path: Path) -> None:
    desk = desk_of(scenario("M2", {**GROUPED, "job.privacy.spare_rounds": 0}), tmp_path / "world")
    made = Play(desk)
    state = evaluate(made.table, play(made.table, made.state))
    assert state.evaluation is not None
    assert len(state.evaluation["sites"]) == 6
    close(desk)


def test_a_whole_world_of_groups_learns_and_is_the_same_twice(tmp_path: Path) -> None:
    runs = [simulate(scenario("M2", GROUPED), tmp_path / name) for name in ("one", "two")]
    assert runs[0].state.parameters.tobytes() == runs[1].state.parameters.tobytes()
    assert all(len(row["groups"]) == 3 for row in runs[0].state.rounds)


def test_a_rule_that_starts_from_the_last_update_has_it_after_a_checkpoint(tmp_path: Path) -> None:
    chosen = {
        "job.aggregation.strategy": "centered-clipping",
        "job.aggregation.settings": {"liars": 1, "radius": 0.01, "pre": []},
    }
    desk = desk_of(scenario("none", {**GROUPED, **chosen}), tmp_path / "world")
    made = Play(desk)
    first = play(made.table, made.state)
    live = tmp_path / "rounds.jsonl"
    save_checkpoint(tmp_path / "kept", first, "mark", LiveRounds(live).keep(first.rounds))
    second = play(made.table, load_checkpoint(tmp_path / "kept", "mark", live))
    moved = [np.linalg.norm(after.memory["combined"]) for after in (first, second)]
    assert 0.005 < moved[0] <= 0.01
    assert 1.5 * moved[0] < moved[1] <= 0.02
    close(desk)


def test_group_means_are_those_of_their_sites(desk: Desk) -> None:
    attempts = Attempts(desk)
    gathered = attempts.next()
    codec = desk.work.codec("train")
    assert isinstance(codec, RangeCodec)
    rows = [update_of(desk.work, part.sum, part.sites) for part in gathered.parts]
    weights = [codec.weight(part.sum) for part in gathered.parts]
    whole = update_of(desk.work, gathered.sum, gathered.sites)
    assert np.average(rows, axis=0, weights=weights) == pytest.approx(whole, abs=1e-9)
