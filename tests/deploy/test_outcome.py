"""What an operator is told of a run: under way, cut, failed, over; who gave something, and what to do next."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from deploy.outcome import STARTING, lacks_ledgers, note_start, outcome, progress
from server.progress import be_alone

TOLD = {"stage": "training", "round": 3, "attempt": 2, "of": 5, "job": "/f/job.toml", "pid": 1}
ROWS = [{"round": 1, "sites": ["a"], "refusals": []}, {"round": 2, "sites": ["a", "b"], "refusals": []}]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "coordinator" / "state"
    made.mkdir(parents=True)
    return made


def begun(state: Path) -> None:
    (state / "progress.json").write_text(json.dumps(TOLD))
    (state / "checkpoint.safetensors").touch()
    (state / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def ended(state: Path, missing: list[dict[str, str]]) -> None:
    table: dict[str, Any] = {
        "manifest": {"sites": [{"name": name} for name in "abc"]},
        "refusals": [{"site": "c", "code": "POLICY_TASK"}],
        "ledgers_missing": missing,
    }
    (state / "result").mkdir(exist_ok=True)
    (state / "result" / "run.json").write_text(json.dumps(table))


def test_a_folder_without_a_run_is_idle(state: Path) -> None:
    assert progress(state, state) == {"status": "idle", "rounds": 0, "last": None}


def test_a_job_that_was_submitted_is_starting_while_somebody_waits_for_it(state: Path) -> None:
    note_start(state, Path("/f/job.toml"), os.getpid())
    assert progress(state, state)["status"] == STARTING
    note_start(state, Path("/f/job.toml"), 2**22 + 1)
    found = progress(state, Path("fed"))
    assert found["status"] == "interrupted"
    assert found["do"] == "hushfed server run /f/job.toml --federation fed"


def test_a_round_under_way_is_told_with_its_attempt(state: Path) -> None:
    begun(state)
    with be_alone(state):
        found = progress(state, state)
    assert found["status"] == "running"
    assert (found["round"], found["attempt"], found["of"], found["stage"]) == (3, 2, 5, "training")
    assert found["rounds"] == 2
    assert "do" not in found


def test_a_run_that_nobody_plays_is_interrupted_and_says_how_it_goes_on(state: Path) -> None:
    begun(state)
    found = progress(state, Path("fed"))
    assert found["status"] == "interrupted"
    assert found["do"] == "hushfed server resume /f/job.toml --federation fed"


def test_a_run_that_failed_says_why(state: Path) -> None:
    begun(state)
    (state / "refusal.json").write_text('{"code": "RUN_FAILED"}')
    found = progress(state, Path("fed"))
    assert found["status"] == "failed"
    assert found["refusal"]["code"] == "RUN_FAILED"
    with be_alone(state):
        assert progress(state, Path("fed"))["status"] == "running"


def test_a_run_that_is_over_says_who_contributed_and_whose_ledger_is_missing(state: Path) -> None:
    begun(state)
    ended(state, [{"site": "b", "code": "SITE_UNREACHABLE"}])
    found = outcome(state)
    assert found["status"] == "completed"
    assert found["contributed"] == 2
    assert [(row["site"], row["rounds"], row["codes"], row["ledger"]) for row in found["sites"]] == [
        ("a", 2, [], None),
        ("b", 1, [], "SITE_UNREACHABLE"),
        ("c", 0, ["POLICY_TASK"], None),
    ]
    absent, missing = found["notes"]
    assert "c contributed to no round: POLICY_TASK." in absent
    assert "No ledger of b" in missing
    assert lacks_ledgers(state)
    assert progress(state, state)["notes"] == found["notes"]
    ended(state, [])
    assert not lacks_ledgers(state)
