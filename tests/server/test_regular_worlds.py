"""Whole rounds in worlds whose sites mask for some of the unmasking sites: training, losses, groups, noise, policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as altered

from client.fitting import refuse_thin
from common.errors import Code, Refusal
from common.messages import RecoverOrder, Reported, UnmaskOrder, WorkOrder
from common.secagg.statements import maskers_of
from common.work import work_of
from server.secagg import thin
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from simulations.world import simulate
from tests.attempts import Attempts, losing, unmaskers
from tests.worlds import Desk, close, code_of, desk_of, scenario, under

TWENTY: dict[str, Any] = {
    "world.partition.sites": 20,
    "world.partition.minimum": 5,
    "world.unmaskers": 10,
    "world.masks_each": 5,
    "job.aggregation.quorum": 16,
    "job.aggregation.session_rounds": 4,
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Twenty sites, ten of them unmask, each masks for five; one may be corrupt and one be lost."""
    made = desk_of(scenario("none", TWENTY), tmp_path_factory.mktemp("twenty"))
    yield made
    close(made)


def test_the_world_is_what_its_scenario_says(desk: Desk) -> None:
    manifest = desk.work.manifest
    assert manifest.unmaskers == tuple(range(1, 11))
    assert (manifest.rules.masks_each, manifest.rules.corrupt_max, manifest.rules.lost_max) == (5, 1, 1)
    assert manifest.rules.recovered_max == 1
    assert desk.work.sum_min == manifest.smallest_sum(16) >= 8


def test_a_round_opens_the_sum_of_all_and_again_when_an_unmasking_site_is_lost(desk: Desk) -> None:
    attempts = Attempts(desk)
    gathered = attempts.next()
    assert (gathered.failure, gathered.sum.count) == (None, 20)
    session = attempts.aggregator.sessions.opening.session  # type: ignore[union-attr]
    for site, order in attempts.seen:
        if isinstance(order, UnmaskOrder):
            seen = {member.site for member in order.sets[0].members}
            assert seen == {each for each in range(1, 21) if site in maskers_of(desk.work.manifest, session, each)}
    lost = unmaskers(attempts)[3]
    gathered = attempts.next(losing(UnmaskOrder, lost))
    assert (gathered.failure, gathered.sum.count) == (None, 20)
    assert sorted(attempts.asked(RecoverOrder)) == [site for site in unmaskers(attempts) if site != lost]
    answered = {order.answered for _, order in attempts.seen if isinstance(order, RecoverOrder)}
    assert len(answered) > 1  # each holder is asked for the set that it answered for


def test_a_part_must_be_as_large_as_the_jobs_own_quorum_makes_it(desk: Desk) -> None:
    """The manifest is content with 16 reports, six of a part; a job whose noise counts on 20 needs seven."""
    attempts = Attempts(desk)
    attempts.count = 300
    attempts.next()
    asked = next(order.sets[0] for _, order in attempts.seen if isinstance(order, UnmaskOrder))
    job = desk.work.job
    strict = replace(desk.work, job=replace(job, aggregation=replace(job.aggregation, quorum=20)))
    for work, least in ((desk.work, 6), (strict, 7)):
        one = asked.members[0]
        refuse_thin(altered(asked, members=(one,) * least), work)
        with pytest.raises(Refusal, check=lambda error: error.code is Code.E_SET):
            refuse_thin(altered(asked, members=(one,) * (least - 1)), work)


def test_the_policys_quorum_is_held_against_the_smallest_sum_and_not_against_the_quorum(desk: Desk) -> None:
    """A keeper who asks for sums of so many sites gets them from a lying coordinator too, or refuses."""
    session = desk.sessions[1]
    policy = session._policy.now
    for quorum, refused in ((desk.work.sum_min, False), (desk.work.sum_min + 1, True)):
        session._policy = under(replace(policy, aggregation=replace(policy.aggregation, quorum=quorum)))
        reply = desk.ask(1, desk.offer())
        assert (code_of(reply) if refused else reply.__struct_config__.tag) == (
            "POLICY_SECAGG" if refused else "accepted"
        )
    session._policy = under(policy)


def test_noise_counts_on_the_smallest_sum_and_not_on_the_quorum(tmp_path: Path) -> None:
    """Must: every site adds the noise that keeps epsilon when a lying coordinator opens the smallest sum there is."""
    made = desk_of(scenario("M2", {**TWENTY, "job.privacy.colluding": 1}), tmp_path / "world")
    work = made.work
    least = work.manifest.smallest_sum(16, 1)
    assert least < 16
    assert work.training.honest == least - 1 == work.counting.honest
    for task in ("train", "evaluate"):
        full = replace(work.manifest, rules=replace(work.manifest.rules, masks_each=0), salt=b"")
        plain = work_of(work.job, full).plan(task)  # type: ignore[arg-type]
        assert plain.honest == 15
        assert work.plan(task).sum_deviation > plain.sum_deviation  # type: ignore[arg-type]
    few = replace(work.job, privacy=replace(work.job.privacy, colluding=least + 1))
    with pytest.raises(Refusal, match="no honest site"):
        _ = work_of(few, work.manifest).training
    close(made)


def test_grouped_sums_in_which_every_unmasking_site_sees_enough_of_each_group(tmp_path: Path) -> None:
    changes = {
        **TWENTY,
        "world.partition.sites": 30,
        "world.unmaskers": 6,
        "world.masks_each": 4,
        "job.aggregation.quorum": 8,
        "job.aggregation.strategy": "median",
        "job.aggregation.settings": {"liars": 1},
        "job.aggregation.groups": 3,
        "job.aggregation.session_rounds": 12,
    }
    made = desk_of(scenario("none", changes), tmp_path / "world")
    attempts = Attempts(made)
    for _ in range(3):
        gathered = attempts.next()
        assert (gathered.failure, [part.sum.count for part in gathered.parts]) == (None, [10, 10, 10])
        for _, order in attempts.seen:
            if isinstance(order, UnmaskOrder):
                assert all(len(each.members) >= 4 for each in order.sets)
    gathered = attempts.next(losing(UnmaskOrder, 2))
    assert [part.sum.count for part in gathered.parts] == [10, 10, 10]
    close(made)


def leaving(attempts: Attempts, count: int) -> tuple[set[int], frozenset[int]]:
    """The first reports whose loss leaves so many unmasking sites too little, and which ones these are."""
    manifest = attempts.desk.work.manifest
    ids, session = manifest.ids, attempts.aggregator.sessions.opening.session  # type: ignore[union-attr]
    for size in range(5):
        for lost in combinations(reversed(ids), size):
            few = thin(manifest, session, set(ids) - set(lost), 16)
            if len(few) == count:
                return set(lost), few
    raise AssertionError("no such reports")


def test_an_unmasking_site_that_sees_too_little_is_not_asked_and_its_masks_are_recovered(desk: Desk) -> None:
    """Must: the round is kept, as with a lost unmasking site. Must not: ask that site for a sum below its minimum."""
    attempts = Attempts(desk)
    attempts.count = 100
    assert attempts.next().failure is None
    lost, (target,) = leaving(attempts, 1)
    gathered = attempts.next(losing(WorkOrder, *lost))
    assert (gathered.failure, gathered.sites) == (None, tuple(sorted(set(desk.work.manifest.ids) - lost)))
    assert target not in attempts.asked(UnmaskOrder)
    assert {order.lost for _, order in attempts.seen if isinstance(order, RecoverOrder)} == {(target,)}
    for site, order in attempts.seen:
        assert not isinstance(order, UnmaskOrder) or len(order.sets[0].members) >= 6, site
    assert target not in gathered.notes.refused  # it did nothing wrong, and the next round asks it as ever
    assert attempts.next().failure is None
    assert target in attempts.asked(UnmaskOrder)


def test_a_round_that_leaves_more_of_them_too_little_is_dropped_before_anyone_unmasks(desk: Desk) -> None:
    attempts = Attempts(desk)
    attempts.count = 130
    assert attempts.next().failure is None
    lost, _ = leaving(attempts, 2)
    gathered = attempts.next(losing(WorkOrder, *lost))
    assert gathered.failure is Code.E_TOO_FEW
    assert attempts.asked(UnmaskOrder) == []


def test_one_that_sees_too_little_and_one_that_is_lost_are_more_than_the_rules_let_be_recovered(desk: Desk) -> None:
    attempts = Attempts(desk)
    attempts.count = 150
    assert attempts.next().failure is None
    lost, (target,) = leaving(attempts, 1)
    silent = next(site for site in unmaskers(attempts) if site != target)

    def line(site: int, order: Any, answer: Any) -> bytes | None:
        gone = (isinstance(order, WorkOrder) and site in lost) or (isinstance(order, UnmaskOrder) and site == silent)
        return None if gone else bytes(answer())

    assert attempts.next(line).failure is Code.E_HELPER_LOST
    assert attempts.asked(RecoverOrder) == []


def test_unmasking_sites_that_pause_are_asked_when_no_session_can_do_without_them(desk: Desk) -> None:
    """Two reports were late, and their sites unmask: all ten are needed, so the next round does not leave them out."""
    attempts = Attempts(desk)
    attempts.count = 170
    attempts.next()
    attempts.next(losing(WorkOrder, 1, 2))
    assert attempts.next().failure is None
    assert set(attempts.asked(WorkOrder)) == set(desk.work.manifest.ids)


def test_reports_are_smaller_by_the_ciphertexts_that_are_not_needed(desk: Desk) -> None:
    attempts = Attempts(desk)
    attempts.count, sizes = 200, set[int]()

    def weighed(site: int, order: Any, answer: Any) -> bytes | None:
        reply = answer()
        if isinstance(order, WorkOrder):
            found = desk.ask(site, order)
            assert isinstance(found, Reported)
            sizes.add(len(found.report.ciphertexts))
        return bytes(reply)

    attempts.next(weighed)
    assert sizes == {5}


def test_a_simulated_run_of_twenty_sites_learns_what_the_same_run_with_all_masks_learns(tmp_path: Path) -> None:
    """The sum is the same sum: without noise and with the same rounding, the two models are equal in every bit."""
    worlds = {"some": TWENTY, "all": {**TWENTY, "world.masks_each": 0}}
    runs = [
        simulate(scenario("none", {**changes, "job.rounds": 2}), tmp_path / name) for name, changes in worlds.items()
    ]
    assert runs[0].state.parameters.tobytes() == runs[1].state.parameters.tobytes()


@pytest.mark.parametrize("seed", [1, 2, 10])
def test_a_simulated_private_run_of_twenty_sites_ends_within_its_budget(tmp_path: Path, seed: int) -> None:
    """Reports are lost, so that some unmasking sites see too little now and then; lots are new in every world."""
    faults = {"job.rounds": 2, "world.seed": seed, "world.faults": {"dropout": 0.03}}
    run = simulate(scenario("M2", {**TWENTY, **faults}), tmp_path / "world")
    assert len(run.state.rounds) == 2
    assert run.state.evaluation is not None
    found = audit(read_run(run.record))
    assert (found["problems"], len(found["sites"])) == (["NOISE_REPLAY"], 20)  # of a test's world: nothing else
