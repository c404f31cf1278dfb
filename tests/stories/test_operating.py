"""An operator's day: a run watched, interrupted and resumed; a site that declines, and one that keeps its ledger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.up import Federation
from simulations.demo import Deployment
from tests.stories.stage import alive, change_policy, command, in_training, kill, scenario_of, set_up, site_of, until

pytestmark = [pytest.mark.story, pytest.mark.timeout(300)]

SCENARIO = scenario_of("job.rounds=2", "job.privacy.spare_rounds=2")
TASKS = ["offer", "train", "evaluate"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Clinic-c allows nothing, clinic-d everything but to show its ledger."""
    made = set_up(SCENARIO, tmp_path_factory.mktemp("operating"), limit=50.0, agent="held_agent")
    change_policy(site_of(made, "clinic-c"), "tasks", allow=["offer"])
    change_policy(site_of(made, "clinic-d"), "tasks", allow=TASKS)
    return made


@pytest.fixture(scope="module")
def federation(made: Deployment, programs: None) -> Iterator[Federation]:
    with Federation(made.layout) as running:
        yield running


def words(made: Deployment, word: str) -> list[str]:
    return ["server", word, str(made.job), "--federation", str(made.folder.root)]


def status(made: Deployment) -> dict[str, object]:
    return command("server", "status", "--federation", str(made.folder.root))[1]


@pytest.fixture(scope="module")
def interrupted(federation: Federation, made: Deployment) -> tuple[dict[str, object], int, dict[str, object]]:
    """What the status said in the middle of round 1; how Ctrl-C ended the command, and what it said last."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with in_training_of_a_run(made, path) as (process, told):
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    return told, process.returncode, json.loads(said.splitlines()[-1])


class in_training_of_a_run:  # noqa: N801  # reads as what it is
    """A run of the command line, while clinic-a is in the middle of its first round."""

    def __init__(self, made: Deployment, path: str) -> None:
        self._made, self._held = made, in_training(site_of(made, "clinic-a"))
        (site_of(made, "clinic-a").root / "hold").touch()
        self._process = subprocess.Popen(
            ["hushfed", *words(made, "run"), "--json"],
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> tuple[subprocess.Popen[str], dict[str, object]]:
        self._held.__enter__()
        told = status(self._made)
        told["second"] = [command(*words(self._made, word)) for word in ("run", "resume")]
        return self._process, told

    def __exit__(self, *_: object) -> None:
        self._held.__exit__(None, None, None)
        self._process.kill()


def test_a_round_under_way_is_told_with_its_attempt(interrupted: tuple[dict[str, object], int, dict[str, object]]):
    told = interrupted[0]
    assert told["status"] == "running"
    assert (told["stage"], told["round"], told["attempt"], told["of"], told["rounds"]) == ("training", 1, 1, 2, 0)


def test_a_run_under_way_is_not_started_or_resumed_beside_itself(
    interrupted: tuple[dict[str, object], int, dict[str, object]],
):
    for code, told in interrupted[0]["second"]:  # type: ignore[attr-defined]
        assert code == 3
        assert told["refusal"]["code"] in ("ALREADY_RUNNING", "FILE_EXISTS")
    assert interrupted[0]["second"][1][1]["refusal"]["code"] == "ALREADY_RUNNING"  # type: ignore[index]


def test_an_interrupted_run_stops_and_says_how_it_goes_on(
    interrupted: tuple[dict[str, object], int, dict[str, object]], made: Deployment
):
    """Must: stop the coordinator, not only the command. Must not: call it idle, or leave the reader to guess."""
    _, code, last = interrupted
    assert code == 130
    assert last["status"] == "interrupted"
    assert last["do"] == f"hushfed server resume {made.job} --federation {made.folder.root}"
    assert status(made)["status"] == "interrupted"


@pytest.fixture(scope="module")
def finished(
    interrupted: object, made: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], Path]:
    """What resuming printed, and a copy of the result."""
    code, told = command(*words(made, "resume"))
    assert code == 2  # complete, and not to be checked
    out = tmp_path_factory.mktemp("copies") / "first"
    assert command("server", "result", str(out), "--federation", str(made.folder.root))[0] == 0
    return told, out


def test_the_end_says_who_contributed_and_whose_ledger_is_missing(finished: tuple[dict[str, object], Path]):
    told, _ = finished
    assert told["status"] == "completed"
    assert told["contributed"] == 3
    rows = {row["site"]: row for row in told["sites"]}  # type: ignore[attr-defined]
    assert (rows["clinic-c"]["rounds"], rows["clinic-c"]["codes"]) == (0, ["POLICY_TASK"])
    assert [rows[name]["rounds"] for name in ("clinic-a", "clinic-b", "clinic-d")] == [2, 2, 2]
    assert told["ledgers_missing"] == [{"site": "clinic-d", "code": "POLICY_TASK"}]
    assert [note.partition(":")[0] for note in told["notes"]] == [  # type: ignore[attr-defined]
        "clinic-c contributed to no round",
        "No ledger of clinic-d that verifies was to be had when the run ended (POLICY_TASK)",
    ]


def test_the_report_says_the_same_and_the_audit_does_not_pass(finished: tuple[dict[str, object], Path]):
    _, run = finished
    assert command("report", "build", str(run))[0] == 0
    page, card = (run / "report.html").read_text(), (run / "card.md").read_text()
    for text in (page, card):
        assert "3 of 4 sites" in text
        assert "No ledger of clinic-d that verifies was to be had" in text
    assert "clinic-c contributed to no round: POLICY_TASK." in page
    code, found = command("audit", "privacy", str(run))
    assert code == 1
    assert "LEDGER_MISSING" in found["problems"]
    assert any("POLICY_TASK" in one["detail"] for one in found["findings"] if one["site"] == "clinic-d")


def test_a_ledger_that_is_shown_later_completes_the_run(
    finished: tuple[dict[str, object], Path], federation: Federation, made: Deployment, tmp_path: Path
):
    """Must: ask again by resuming, and end with an audit that passes. Must not: play a round or charge anybody."""
    site = site_of(made, "clinic-d")
    change_policy(site, "tasks", allow=[*TASKS, "ledger"])
    old = psutil.Process(federation.pids()["agent-clinic-d"])
    kill(federation, "agent-clinic-d")
    until(lambda: not alive(old), 10)
    until(federation._all_ready, 60)
    code, told = command(*words(made, "resume"))
    assert code == 0
    assert told["ledgers_missing"] == []
    assert told["rounds"] == 2
    out = tmp_path / "second"
    assert command("server", "result", str(out), "--federation", str(made.folder.root))[0] == 0
    assert command("audit", "privacy", str(out))[0] == 0
