"""Cells in worker processes: whole or not at all, whoever is killed, and the same table in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.errors import Code, Refusal
from simulations.study.cells import Cell, cells_of, rows_of
from simulations.study.plan import Study, study_of
from simulations.study.store import RESULT, Store
from simulations.study.sweep import Sweep, created, missing, sweep
from simulations.study.table import table_of
from simulations.study.words import table_text
from tests.simulations.study import fakes

ROOT = Path(__file__).parents[3]
HOW = Sweep(fakes.PLAYER, "code")
RATES = "job.training.learning_rate"


def made(folder: Path, **changes: Any) -> tuple[Store, Study, tuple[Cell, ...]]:
    study = study_of(fakes.study_table(**changes))
    return created(study, folder), study, cells_of(rows_of(study))


def shown(store: Store, study: Study, code: str = "code") -> bytes:
    table = table_of(store, study, code)
    return (json.dumps(table.as_dict()) + table_text(table)).encode()


def parts(store: Store) -> list[str]:
    return [path.name for path in store.cells.glob("*.part")]


def until(holds: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The table of an uninterrupted study, one worker."""
    store, study, cells = made(tmp_path / "whole")
    sweep(store, cells, HOW, workers=1)
    return shown(store, study)


def test_any_number_of_workers_gives_the_same_table(tmp_path: Path, whole: bytes) -> None:
    store, study, cells = made(tmp_path / "study")
    ended: list[str] = []
    sweep(store, cells, HOW, workers=3, seen=lambda done: ended.append(done.order.cell))
    assert shown(store, study) == whole
    assert sorted(ended) == sorted(cell.id("code") for cell in cells)
    before = {path: path.stat().st_mtime_ns for path in store.cells.glob(f"*/{RESULT}")}
    sweep(store, cells, HOW, workers=2, seen=lambda done: pytest.fail("a cell with a result was played again"))
    assert {path: path.stat().st_mtime_ns for path in store.cells.glob(f"*/{RESULT}")} == before


@pytest.mark.parametrize("victim", ["the sweep", "everybody"])
def test_a_study_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path, whole: bytes, victim: str) -> None:
    """Must: keep whole cells, lose begun ones, leave no process. Must not: tell a killed study from another."""
    store, study, cells = made(tmp_path / "study")
    environment = {**os.environ, "FAKE_SECONDS": "0.5"}
    words = [sys.executable, "-m", "tests.simulations.study.fakes", str(store.folder), "2"]
    process = subprocess.Popen(words, cwd=ROOT, env=environment)
    until(lambda: len(missing(store, cells, "code")) <= len(cells) - 2 and parts(store))
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    for worker in workers if victim == "everybody" else ():
        worker.kill()
    process.wait()
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    kept = {path: path.read_bytes() for path in store.cells.glob(f"*/{RESULT}") if path.parent.suffix != ".part"}
    assert 0 < len(missing(store, cells, "code")) < len(cells)
    assert table_of(store, study, "code").status == "incomplete"
    sweep(store, cells, HOW, workers=2)
    assert shown(store, study) == whole
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert parts(store) == []


def test_workers_do_not_outlive_the_sweep_by_a_long_cell(tmp_path: Path) -> None:
    """Must: end within the cell, which would take an hour. Must not: play on beside whoever resumes."""
    store, _, _ = made(tmp_path / "study")
    words = [sys.executable, "-m", "tests.simulations.study.fakes", str(store.folder), "2"]
    process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, "FAKE_SECONDS": "3600"})
    until(lambda: len(parts(store)) == 2)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    left = psutil.wait_procs(workers, timeout=30)[1]
    for worker in left:
        worker.kill()
    assert left == []


def test_a_worker_that_dies_ends_its_own_cell_alone(tmp_path: Path) -> None:
    rates = [0.25, fakes.CRASH, fakes.KILLED, fakes.DIVERGED, fakes.REFUSED]
    store, study, cells = made(tmp_path / "study", grid={RATES: rates}, seeds={"n": 2, "root": 1})
    sweep(store, cells, HOW, workers=2)
    ended = {cell.scenario.job.training.learning_rate: store.read(cell.id("code")) for cell in cells}
    told = {rate: (result.status, result.code) for rate, result in ended.items() if result}
    assert told == {
        0.25: ("completed", ""),
        fakes.CRASH: ("error", "PROCESS_FAILED"),
        fakes.KILLED: ("error", "PROCESS_FAILED"),
        fakes.DIVERGED: ("diverged", "UPDATE_INVALID"),
        fakes.REFUSED: ("error", "RUN_FAILED"),
    }
    killed = ended[fakes.KILLED]
    assert killed is not None
    assert "SIGKILL" in killed.why
    lines = table_of(store, study, "code").as_dict()["rows"]
    assert [row["planned"] for row in lines] == [2] * 5
    assert Counter(failure["status"] for row in lines for failure in row["failures"]) == {"error": 6, "diverged": 2}


def test_failed_cells_are_played_again_only_if_asked(tmp_path: Path) -> None:
    store, _, cells = made(tmp_path / "study", grid={RATES: [0.25, fakes.DIVERGED]}, seeds={"n": 2, "root": 1})
    sweep(store, cells, HOW, workers=1)
    assert missing(store, cells, "code") == ()
    assert len(missing(store, cells, "code", retry=True)) == 2
    played: list[str] = []
    sweep(store, cells, HOW, workers=1, retry=True, seen=lambda done: played.append(done.result.status))
    assert played == ["diverged", "diverged"]


def test_a_full_disk_stops_the_study_and_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: refuse by its code, keep whole cells, go on once there is room. Must not: blame a cell."""
    room = tmp_path / "room"
    monkeypatch.setenv("FAKE_ROOM", str(room))
    store, study, cells = made(tmp_path / "study", grid={RATES: [0.25, fakes.FULL]}, seeds={"n": 2, "root": 1})
    with pytest.raises(Refusal, match="simulate resume") as refused:
        sweep(store, cells, HOW, workers=1)
    assert refused.value.code is Code.FILE_UNWRITABLE
    assert "no space" in refused.value.why
    assert parts(store) == []
    assert len(missing(store, cells, "code")) == 3
    room.touch()
    sweep(store, cells, HOW, workers=1)
    assert table_of(store, study, "code").status == "completed"


def test_a_player_that_cannot_be_imported_stops_the_study(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store, _, cells = made(tmp_path / "study")
    with pytest.raises(Refusal, match="no worker starts") as refused:
        sweep(store, cells, Sweep("tests.simulations.study.nobody:play", "code"), workers=2)
    assert refused.value.code is Code.PROCESS_FAILED
    assert len(missing(store, cells, "code")) == len(cells)


def test_two_processes_never_play_one_study(tmp_path: Path) -> None:
    store, _, cells = made(tmp_path / "study")
    with store.alone(), pytest.raises(Refusal) as refused:
        sweep(store, cells, HOW, workers=1)
    assert refused.value.code is Code.ALREADY_RUNNING


def test_an_interrupted_study_leaves_no_process_and_no_part(tmp_path: Path) -> None:
    store, _, cells = made(tmp_path / "study")

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(store, cells, HOW, workers=2, seen=interrupt)
    assert [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())] == []
    assert parts(store) == []
    assert 0 < len(missing(store, cells, "code")) < len(cells)


def test_workers_have_one_processor_and_one_thread_and_leave_this_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    store, _, cells = made(tmp_path / "study")
    seen: list[tuple[str, int]] = []

    def look(_: object) -> None:
        for child in psutil.Process().children():
            if "spawn_main" in str(child.cmdline()):
                seen.append((child.environ()["OMP_NUM_THREADS"], len(child.cpu_affinity() or ())))

    sweep(store, cells, HOW, workers=1, seen=look)
    assert set(seen) == {("1", 1)}
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ
