"""Processes kept alive: restarted after a death, not after a refusal, and none left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from common.supervision import Program, Supervisor, descendants


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    one = Supervisor()
    yield one
    one.stop()


def program(folder: Path, name: str, code: str, rank: int = 0) -> Program:
    command = [sys.executable, "-I", "-S", "-c", code]
    home, log = folder / name, folder / f"{name}.log"
    return Program(name=name, command=command, environment=dict(os.environ), folder=home, log=log, rank=rank)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = "import subprocess, time; subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"


def test_a_killed_process_is_started_again(supervisor: Supervisor, tmp_path: Path):
    supervisor.start([program(tmp_path, "one", SLEEP)])
    first = supervisor.pids()["one"]
    os.kill(first, signal.SIGKILL)
    until(lambda: supervisor.pids().get("one", first) != first)
    until(lambda: supervisor.states() == {"one": "running"})


def test_a_process_that_refuses_is_left_to_its_keeper(supervisor: Supervisor, tmp_path: Path):
    supervisor.start([program(tmp_path, "one", "print('no', flush=True); raise SystemExit(3)")])
    until(lambda: supervisor.states() == {"one": "refused"})
    time.sleep(0.5)
    assert (tmp_path / "one.log").read_text() == "no\n"


def test_a_process_that_dies_again_and_again_is_started_ever_more_slowly(supervisor: Supervisor, tmp_path: Path):
    supervisor.start([program(tmp_path, "one", "print('x', flush=True); raise SystemExit(1)")])
    time.sleep(2.5)
    assert 2 <= (tmp_path / "one.log").read_text().count("x") <= 5


def test_after_stop_nothing_is_left(supervisor: Supervisor, tmp_path: Path):
    """Must: end even those that ignore SIGTERM, and what they started in sessions of their own."""
    programs = [program(tmp_path, "plain", SLEEP, 2), program(tmp_path, "deaf", STUBBORN, 1)]
    supervisor.start([*programs, program(tmp_path, "parent", PARENT)])
    until(lambda: bool(descendants(supervisor.pids()["parent"])))
    until(lambda: (tmp_path / "deaf.log").exists() and "up" in (tmp_path / "deaf.log").read_text())
    left = [*supervisor.pids().values(), *descendants(supervisor.pids()["parent"])]
    assert len(left) == 4
    supervisor.stop()
    until(lambda: not any(psutil.pid_exists(pid) and alive(pid) for pid in left))
    assert set(supervisor.states().values()) == {"stopped"}
    supervisor.stop()


def alive(pid: int) -> bool:
    """Not merely unreaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_command_that_does_not_exist_ends_as_a_process_that_died(supervisor: Supervisor, tmp_path: Path):
    none = Program(
        name="none",
        command=["/no/such/command"],
        environment={},
        folder=tmp_path,
        log=tmp_path / "log",
        rank=0,
    )
    supervisor.start([none])
    until(lambda: supervisor.states() == {"none": "restarting"})


def test_an_environment_is_not_printed(tmp_path: Path):
    assert "PATH" not in repr(program(tmp_path, "one", SLEEP))
