"""hushfed server: a run that is given up, refused beside another one, or stopped before it began."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy import operate
from deploy.fleet import RunState
from deploy.outcome import note_start
from server.progress import be_alone

RUNNER = CliRunner()
NUMBER = 77
REFUSAL = {"code": "ALREADY_RUNNING", "what": "Run not played", "why": "`coordinator` runs", "do": "Use that one"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A federation's folder, with the heads that its runs acknowledged."""
    (tmp_path / "coordinator").mkdir()
    (tmp_path / "coordinator" / "heads.json").write_text('{"clinics": {}}')
    return tmp_path


def state_of(root: Path) -> Path:
    return root / "coordinator" / "state"


def failed(root: Path) -> Path:
    """A run that has lost its sites in round 2."""
    state = state_of(root)
    state.mkdir()
    (state / "run.id").write_text("ab" * 16)
    (state / "checkpoint.safetensors").write_text("model")
    (state / "rounds.jsonl").write_text('{"round": 1}\n')
    (state / "progress.json").write_text(json.dumps({"stage": "training", "job": "/f/job.toml", "pid": 1}))
    (state / "refusal.json").write_text(json.dumps({**REFUSAL, "code": "E_TOO_FEW"}))
    return state


def told(*words: object) -> tuple[int, dict[str, Any]]:
    """Exit code and the last line of a command with --json."""
    result = RUNNER.invoke(operate.app, [*map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout.splitlines()[-1])


def test_a_run_that_is_given_up_is_kept_and_makes_room(root: Path) -> None:
    """Must: keep every file, say where, and leave room. Must not: touch the heads that find a rolled-back ledger."""
    state = failed(root)
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    heads = root / "coordinator" / "heads.json"
    was = heads.stat().st_mtime_ns, heads.read_bytes()
    code, found = told("discard", "--federation", root)
    kept = root / "coordinator" / f"state-{'ab' * 6}"
    assert (code, found) == (0, {"status": "discarded", "was": "failed", "rounds": 1, "kept": str(kept)})
    assert not state.exists()
    assert {name: (kept / name).read_bytes() for name in before} == before
    assert (heads.stat().st_mtime_ns, heads.read_bytes()) == was
    code, found = told("discard", "--federation", root)
    assert (code, found["refusal"]["code"]) == (3, "RUN_UNKNOWN")


def test_a_run_that_never_got_a_name_is_given_up_too(root: Path) -> None:
    note_start(state_of(root), Path("/f/job.toml"), 2**22 + 1)
    code, found = told("discard", "--federation", root)
    assert (code, found["was"]) == (0, "interrupted")
    assert (Path(found["kept"]) / "progress.json").exists()
    assert not state_of(root).exists()


def test_a_run_that_somebody_plays_or_starts_is_not_given_up(root: Path) -> None:
    state = failed(root)
    with be_alone(state):
        code, found = told("discard", "--federation", root)
    assert (code, found["refusal"]["code"]) == (3, "ALREADY_RUNNING")
    note_start(state, Path("/f/job.toml"), os.getpid())
    code, found = told("discard", "--federation", root)
    assert (code, found["refusal"]["code"]) == (3, "ALREADY_RUNNING")
    assert (state / "checkpoint.safetensors").exists()


def test_a_result_is_not_cleared_away_from_under_a_coordinator(root: Path, tmp_path: Path) -> None:
    state = failed(root)
    (state / "result").mkdir()
    (state / "result" / "run.json").write_text('{"manifest": {"sites": []}}')
    with be_alone(state):
        code, found = told("result", tmp_path / "out", "--federation", root, "--clear")
    assert (code, found["refusal"]["code"]) == (3, "ALREADY_RUNNING")
    assert not (tmp_path / "out").exists()
    assert told("result", tmp_path / "out", "--federation", root, "--clear")[0] == 0
    assert not state.exists()


def test_whoever_meets_a_run_that_is_not_over_is_told_both_ways_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must: name the command that goes on and the one that gives up. Must not: send anybody in a circle."""
    failed(root)
    monkeypatch.setattr(operate, "control_of", lambda _root: Server(lambda: None))
    resume = f"hushfed server resume /f/job.toml --federation {root}"
    discard = f"hushfed server discard --federation {root}"
    for words in (("run", "job.toml"), ("result", tmp_path / "out", "--clear")):
        code, found = told(*words, "--federation", root)
        assert code == 3
        assert resume in found["refusal"]["do"]
        assert discard in found["refusal"]["do"]
        assert "--clear" not in found["refusal"]["do"]
    found = told("status", "--federation", root)[1]
    assert (found["do"], found["give_up"]) == (resume, discard)


class Server:
    """Stands for the coordination server; `look` is what happens whenever somebody asks how the run fares."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look, self.stopped = look, list[int]()

    def start(self, _settings: object, _bundle: bytes) -> int:
        return NUMBER

    def run(self, number: int) -> RunState:
        self._look()
        return RunState(number, "finished", "failed", "ServerApp failed with exception")

    def stop(self, number: int) -> None:
        self.stopped.append(number)

    def nodes(self) -> tuple[()]:
        return ()

    def close(self) -> None:
        """Nothing is open."""


def test_the_loser_of_two_starts_is_told_so_in_the_coordinators_words(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must: end with ALREADY_RUNNING. Must not: repeat the winner's word, overwrite it, or leave its own behind."""
    state = state_of(root)

    def lose() -> None:
        (state / "refusal.json").write_text(json.dumps({**REFUSAL, "code": "E_TOO_FEW"}))
        (state / f"refusal-{NUMBER}.json").write_text(json.dumps(REFUSAL))

    monkeypatch.setattr(operate, "control_of", lambda _root: Server(lose))
    code, found = told("run", "job.toml", "--federation", root)
    assert (code, found["refusal"]) == (3, REFUSAL)
    assert not (state / f"refusal-{NUMBER}.json").exists()
    assert json.loads((state / "refusal.json").read_text())["code"] == "E_TOO_FEW"


def test_a_run_that_is_stopped_before_it_began_says_how_it_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: name the command that `server status` names afterwards."""

    def interrupt() -> None:
        assert told("status", "--federation", root)[1]["status"] == "starting"
        raise KeyboardInterrupt

    server = Server(interrupt)
    monkeypatch.setattr(operate, "control_of", lambda _root: server)
    code, found = told("run", "/f/job.toml", "--federation", root)
    assert (code, found["status"], server.stopped) == (130, "interrupted", [NUMBER])
    assert found["do"] == f"hushfed server run /f/job.toml --federation {root}"
    assert told("status", "--federation", root)[1]["do"] == found["do"]


@pytest.mark.parametrize("word", ["run", "resume"])
def test_a_run_whose_ledger_is_missing_ends_with_2_until_it_is_had(
    root: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """Neither done, since nobody can check it, nor failed: the model is there."""
    missing = [{"site": "clinic-b", "code": "SITE_UNREACHABLE"}]

    def played(lost: list[dict[str, str]]) -> Callable[..., str]:
        def watched(*_: Any, **__: Any) -> str:
            (state_of(root) / "result").mkdir(parents=True, exist_ok=True)
            sites = [{"name": "clinic-a"}, {"name": "clinic-b"}]
            table = {"manifest": {"sites": sites}, "refusals": [], "ledgers_missing": lost}
            (state_of(root) / "result" / "run.json").write_text(json.dumps(table))
            (state_of(root) / "checkpoint.safetensors").write_text("model")
            return ""

        return watched

    control = SimpleNamespace(start=lambda *_: NUMBER, close=lambda: None)
    monkeypatch.setattr(operate, "control_of", lambda _: control)
    monkeypatch.setattr(operate, "make_bundle", bytes)
    monkeypatch.setattr(operate, "_watched", played(missing))
    if word == "resume":
        state_of(root).mkdir()
        (state_of(root) / "checkpoint.safetensors").write_text("model")
    code, found = told(word, "job.toml", "--federation", root)
    assert (code, found["status"], found["ledgers_missing"]) == (2, "completed", missing)
    monkeypatch.setattr(operate, "_watched", played([]))
    for _ in range(2):  # asked for again, and had; then there is nothing left to do
        code, found = told("resume", "job.toml", "--federation", root)
        assert (code, found["status"], found["ledgers_missing"]) == (0, "completed", [])
