"""Worlds with a clock: deadlines hold against simulated times, crashed sites come back from disk, charges stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import Code, Refusal
from common.privacy.entries import Kind, parse_public
from server.coordinator import RESTART_SECONDS
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from simulations.faults import Crash, CrashSettings, Place
from simulations.finish import finish
from simulations.turnout import told
from simulations.world import Finished, simulate
from tests.worlds import scenario

SITES = {
    "world.partition.sites": 6,
    "world.partition.minimum": 20,
    "job.aggregation.quorum": 2,
    "job.aggregation.deadline_seconds": 100.0,
    "job.rounds": 6,
}
LATE = {**SITES, "world.faults": {"stragglers": {"seconds": 80.0, "spread": 0.1, "jitter": 0.15}}}
CRASHING = {
    **SITES,
    "world.partition.sites": 8,
    "world.unmaskers": 5,
    "world.lost_max": 1,
    "job.privacy.spare_rounds": 8,
    "world.faults": {
        "stragglers": {"seconds": 40.0, "jitter": 0.2},
        "crashes": {"chance": 0.2, "seconds": 20.0, "spread": 1.0},
    },
}


def played(mode: str, changes: dict[str, Any], folder: Path) -> Finished:
    return simulate(scenario(mode, changes), folder)


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    """A row without the bytes that were sent, which differ with random keys."""
    return {name: value for name, value in row.items() if name != "bytes"}


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """One world twice in the open, and once with masks."""
    folder = tmp_path_factory.mktemp("late")
    kinds = {"exact": "exact", "again": "exact", "masked": "masked"}
    return {name: played("none", {**LATE, "world.sums": sums}, folder / name) for name, sums in kinds.items()}


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """Six sites that crash in mid-work, with noise inside the sums, as a run directory too."""
    folder, made = tmp_path_factory.mktemp("crashed"), scenario("M2", {**CRASHING, "job.privacy.noise": "system"})
    done = simulate(made, folder / "world")
    finish(made, done, folder / "run")
    return done, folder / "run"


def test_the_same_world_takes_the_same_time_bit_for_bit(late: dict[str, Finished]) -> None:
    one, two = late["exact"], late["again"]
    assert one.state.parameters.tobytes() == two.state.parameters.tobytes()
    assert one.state.rounds == two.state.rounds
    assert one.course.log == two.course.log


def test_rounds_close_at_the_deadline_or_with_the_last_answer(late: dict[str, Finished]) -> None:
    """Must: tell the time of the world's clock. Must not: look at any other."""
    rows = late["exact"].state.rounds
    assert all(0 < row["seconds"] <= 100.0 for row in rows)
    assert any(row["seconds"] == 100.0 for row in rows)
    assert any(row["seconds"] < 100.0 for row in rows)
    ends = np.cumsum([row["seconds"] for row in rows])
    assert [row["elapsed"] for row in rows] == pytest.approx(ends, abs=0.01)


def test_worlds_with_and_without_masks_agree_on_who_was_late(late: dict[str, Finished]) -> None:
    one, other = late["exact"], late["masked"]
    assert sum(each.ends["late"] for each in one.course.log) > 3
    assert [each.ends for each in one.course.log] == [each.ends for each in other.course.log]
    assert [row["sites"] for row in one.state.rounds] == [row["sites"] for row in other.state.rounds]
    assert [row["refusals"] for row in one.state.rounds] == [row["refusals"] for row in other.state.rounds]
    waits = [after["elapsed"] - row["elapsed"] for row, after in zip(one.state.rounds, other.state.rounds, strict=True)]
    assert all(wait >= 0 for wait in waits), "a late site that should unmask keeps a masked round waiting, and no other"
    difference = np.linalg.norm(one.state.parameters - other.state.parameters)
    assert difference <= 2e-5 * np.linalg.norm(one.state.parameters)


def entries(done: Finished, name: str, kind: Kind) -> list[dict[str, Any]]:
    """The lines of a site's ledger of one kind."""
    lines = parse_public((done.record / "ledgers" / f"{name}.jsonl").read_bytes())
    return [entry for line in lines if (entry := json.loads(line.body))["kind"] == kind]


def charges(done: Finished, name: str) -> list[dict[str, Any]]:
    """Those that charge it for training."""
    return [entry for entry in entries(done, name, Kind.RESERVE) if entry["partition"] == "train"]


def test_a_late_answer_is_lost_and_charged(late: dict[str, Finished]) -> None:
    done = late["masked"]
    names = [site.name for site in done.federation.sites]
    charged = sum(len(charges(done, name)) for name in names)
    begun = [sum(each.ends[end] for end in ("answered", "late")) for each in done.course.log if each.task == "train"]
    summed = sum(len(row["sites"]) for row in done.state.rounds)
    assert charged == sum(begun) > summed
    assert {refusal["code"] for row in done.state.rounds for refusal in row["refusals"]} == {"SITE_UNREACHABLE"}


def test_crashed_sites_come_back_and_training_goes_on(crashed: tuple[Finished, Path]) -> None:
    done, _ = crashed
    rows = done.state.rounds
    assert len(rows) == 6
    assert sum(each.ends["crashed"] for each in done.course.log) >= 3
    missing = {site for row in rows[:3] for site in (each["site"] for each in row["refusals"])}
    assert missing & {site for row in rows[3:] for site in row["sites"]}


def test_no_crash_takes_a_charge_off_a_ledger(crashed: tuple[Finished, Path]) -> None:
    """Must: leave every charge for which work began, also where the site died over it. Must: pass the audit."""
    done, run = crashed
    charged = sum(len(charges(done, site.name)) for site in done.federation.sites)
    log = [each for each in done.course.log if each.task == "train"]
    assert charged == sum(each.ends[end] for each in log for end in ("answered", "crashed", "late", "lost"))
    found = audit(read_run(run))
    assert (found["verdict"], found["findings"]) == ("PASS", [])
    assert all(0 < site["recomputed"] <= 8.0 for site in found["sites"])


def falling(monkeypatch: pytest.MonkeyPatch, crashes: dict[tuple[int, int], Crash]) -> None:
    """Let these sites crash in these rounds of training, and nobody else."""

    def drawn(settings: CrashSettings, seed: int, place: Place) -> Crash | None:
        site, task, number, _ = place
        return crashes.get((site, number)) if task == "train" else None

    monkeypatch.setattr(CrashSettings, "drawn", drawn)


ALL_UNMASK = {**CRASHING, "world.partition.sites": 5, "job.rounds": 3}


def test_an_unmasking_site_that_dies_after_its_report_is_recovered_and_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Must: sum its report without it, after the patience of a deployed coordinator. Must not: lose the round."""
    falling(monkeypatch, {(3, 1): Crash("reported", 0.5, 200.0), (2, 2): Crash("reported", 0.5, 1.0)})
    with caplog.at_level("INFO", "server.opening"):
        done = played("none", {**ALL_UNMASK, "job.privacy": {"mode": "none"}}, tmp_path)
    rows = done.state.rounds
    assert [len(row["sites"]) for row in rows] == [5, 4, 4]
    assert rows[0]["refusals"] == [{"site": "clinic-c", "code": "SITE_UNREACHABLE"}]
    assert "clinic-c" not in rows[1]["sites"]
    assert [line for line in caplog.messages if "masks of site 3 were recovered" in line]
    assert not [line for line in caplog.messages if "masks of site 2" in line], "it was back when it was asked again"
    last = done.course.log[0].ends["answered"]
    assert last == 5
    assert rows[0]["seconds"] > RESTART_SECONDS + 40 * 0.5


def test_a_site_that_dies_between_two_noisy_steps_is_charged_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must: charge what was begun, wherever it ended. Must not: settle for less than the ledger has heard of."""
    moments: dict[tuple[int, int], Crash] = {
        (1, 1): Crash("working", 0.5, 1.0),
        (2, 1): Crash("worked", 0.5, 1.0),
        (3, 1): Crash("working", 0.0, 1.0),
    }
    falling(monkeypatch, moments)
    changes = {**ALL_UNMASK, "world.partition.sites": 7, "world.unmaskers": 2, "world.lost_max": 0, "job.rounds": 1}
    made = scenario("M1", {**changes, "job.training.local_steps": 40, "job.privacy.noise": "system"})
    done = simulate(made, tmp_path / "world")
    finish(made, done, tmp_path / "run")
    assert set(done.state.rounds[0]["sites"]) == {f"clinic-{letter}" for letter in "defg"}
    found = audit(read_run(tmp_path / "run"))
    assert (found["verdict"], found["findings"]) == ("PASS", [])
    spent = {site["site"]: site["recomputed"] for site in found["sites"]}
    assert {name: len(charges(done, name)) for name in spent} == dict.fromkeys(spent, 1)
    for name, steps in {"clinic-a": 30, "clinic-b": 40, "clinic-c": 10}.items():
        (ended,) = entries(done, name, Kind.STOP)
        assert ended["note"] == "PROCESS_FAILED", "the next process writes it: the one that died could not"
        assert ended["steps"] == steps, "up to the mark that would have come next"
    assert 0 < spent["clinic-c"] < spent["clinic-a"] < spent["clinic-b"]
    assert spent["clinic-b"] == pytest.approx(spent["clinic-d"], rel=0.2)


def test_a_run_tells_what_deadlines_and_crashes_did(crashed: tuple[Finished, Path]) -> None:
    _, run = crashed
    table = json.loads((run / "run.json").read_text())
    rows = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    told = table["simulated"]
    assert told["seconds"] == rows[-1]["elapsed"] == pytest.approx(table["seconds"], abs=200.0)
    for name, count in told["answers"].items():
        assert count == sum(row["answers"][name] for row in rows)
    assert told["answers"]["asked"] == sum(count for end, count in told["answers"].items() if end != "asked")
    assert told["answers"]["crashed"] > 0
    assert told["slow"] is None
    assert "simulated" in (run / "report.html").read_text()


def test_sites_are_asked_in_their_hours_and_at_no_others(tmp_path: Path) -> None:
    """Must: draw a round of those that are up then, with masks too. Must not: ask a site that is away."""
    faults = {"stragglers": {"seconds": 60.0}, "availability": {"share": 0.6, "period_seconds": 1500.0}}
    made = {**SITES, "world.partition.sites": 8, "world.faults": faults, "job.rounds": 8}
    done = played("none", made, tmp_path)
    assert sum(each.ends["away"] for each in done.course.log) == 0
    assert len({tuple(row["sites"]) for row in done.state.rounds}) > 1
    assert all(len(row["sites"]) < 8 for row in done.state.rounds[:3])


def test_a_restart_within_an_attempt_by_pairwise_masks_costs_the_site_that_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling(monkeypatch, {(2, 1): Crash("reported", 0.5, 0.0), (4, 2): Crash("working", 0.5, 1.0)})
    changes = {**CRASHING, "job.aggregation.protocol": "bonawitz", "job.aggregation.quorum": 5, "job.rounds": 2}
    done = played("none", {**changes, "world.lost_max": 0, "job.privacy": {"mode": "none"}}, tmp_path)
    names = [{each["site"]: each["code"] for each in row["refusals"]} for row in done.state.rounds]
    assert names[0] == {"clinic-b": "E_ROUND"}
    assert names[1]["clinic-d"] == "SITE_UNREACHABLE"
    assert [len(charges(done, site.name)) for site in done.federation.sites] == [2] * 8


def test_a_deadline_that_nobody_can_make_is_refused_before_any_work(tmp_path: Path) -> None:
    for sums in ("exact", "masked"):
        changes = {**LATE, "world.sums": sums, "job.aggregation.deadline_seconds": 5.0}
        with pytest.raises(Refusal, match="at their quickest 0 of 6 sites") as refused:
            played("none", changes, tmp_path / sums)
        assert refused.value.code is Code.CONFIG_INVALID


def test_a_population_too_slow_for_its_deadline_ends_with_a_refusal_that_says_so(tmp_path: Path) -> None:
    changes = {
        **LATE,
        "world.sums": "exact",
        "world.partition": {"kind": "resampled", "sites": 100_000, "records": 20, "minimum": 1},
        "job.aggregation.cohort": 20,
        "job.aggregation.quorum": 10,
        "job.aggregation.deadline_seconds": 20.0,
    }
    with pytest.raises(Refusal, match="SITE_UNREACHABLE") as refused:
        played("none", changes, tmp_path / "world")
    assert refused.value.code is Code.RUN_FAILED


WEEK = {
    "world.sums": "exact",
    "world.partition": {"kind": "resampled", "sites": 1_000_000, "records": 20, "minimum": 1},
    "world.faults": {
        "dropout": 0.02,
        "stragglers": {"seconds": 600.0, "spread": 0.4, "jitter": 0.2, "slow": 0.2, "factor": 5.0},
        "crashes": {"chance": 0.02, "seconds": 900.0},
        "availability": {"share": 0.4},
    },
    "job.aggregation.cohort": 20,
    "job.aggregation.quorum": 8,
    "job.aggregation.deadline_seconds": 3600.0,
    "job.rounds": 168,
}


def test_a_week_of_a_million_sites_passes_in_seconds_and_memory_of_its_cohorts(tmp_path: Path) -> None:
    """Must: leave slow sites out of short rounds, and say so. Must not: remember a site that is not late or down."""
    made = scenario("none", WEEK)
    done = simulate(made, tmp_path / "world")
    hours = done.state.rounds[-1]["elapsed"] / 3600
    assert 24 < hours <= 168
    assert len(done.course._busy) + len(done.course._down) < 100
    found = told(done.course, done.state.rounds, lambda sites: float(len(sites)))
    assert found["seconds"] == done.state.rounds[-1]["elapsed"]
    assert 0 < found["late"] < 0.2
    slow = found["slow"]
    assert slow["share"] == pytest.approx(0.2, abs=0.06)
    assert 0 < slow["summed"] < slow["share"]
    assert slow["weight"] == slow["summed"] / slow["share"] < 0.9
    assert slow["accuracy"] <= 64
