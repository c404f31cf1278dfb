"""Processes kept alive: started in their own sessions, restarted when they die, none left behind."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from common import child

log = logging.getLogger(__name__)

State = Literal["running", "restarting", "refused", "stopped"]

REFUSED = 3  # exit code of a process whose keeper must act first; starting it again would not help
TICK = 0.1  # seconds between two looks at the processes
STEADY = 30.0  # seconds after which a process counts as well again
LONGEST = 10.0  # most seconds before a restart
TERM_SECONDS = 4.0  # from SIGTERM to SIGKILL


@dataclass(frozen=True, kw_only=True)
class Program:
    """A process to run.

    prefix  command that changes the surroundings and then becomes ours (unshare)
    rank    stopped from the highest rank to the lowest; those of one rank together
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    log: Path
    rank: int
    prefix: Sequence[str] = ()


@dataclass(frozen=True)
class _Running:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    since: float = 0.0
    failures: int = 0
    due: float = 0.0
    refused: bool = False


class Supervisor:
    """One thread starts, watches and ends every process.

    The kernel ends a child when the *thread* that started it ends, so that thread lives as long as the children.
    """

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}
        self._wishes: queue.Queue[tuple[Callable[[], None], Future[None]]] = queue.Queue()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def start(self, programs: Iterable[Program]) -> None:
        """Start `programs`; returns when all are spawned. Errors: OSError (no such command)."""
        wanted = tuple(programs)
        self._wish(lambda: self._spawn_all(wanted))

    def stop(self) -> None:
        """End everything: SIGTERM, then SIGKILL, what they started included. Nothing is left. May be repeated."""
        if not self._over.is_set():
            self._wish(self._end_all)
        self._thread.join()

    def pids(self) -> dict[str, int]:
        """Process ids by name, of those that run."""
        return {
            name: one.process.pid
            for name, one in list(self._running.items())
            if one.process is not None and one.process.returncode is None
        }

    def states(self) -> dict[str, State]:
        """How each process fares."""
        return {name: self._state(one) for name, one in list(self._running.items())}

    def _state(self, one: _Running) -> State:
        if self._over.is_set():
            return "stopped"
        if one.refused:
            return "refused"
        return "running" if one.process is not None and one.process.returncode is None else "restarting"

    def _wish(self, act: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._wishes.put((act, done))
        done.result()

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                act, done = self._wishes.get(timeout=TICK)
            except queue.Empty:
                self._look_after_all()
                continue
            try:
                act()
                done.set_result(None)
            except BaseException as error:  # it belongs to the thread that wished
                done.set_exception(error)

    def _look_after_all(self) -> None:
        for name, one in self._running.items():
            self._running[name] = self._look_after(one)

    def _look_after(self, one: _Running) -> _Running:
        now = time.monotonic()
        if one.refused:
            return one
        if one.process is None:
            return _spawned(one) if now >= one.due else one
        if (code := one.process.poll()) is None:
            return one
        kill_all(descendants(one.process.pid))
        if code == REFUSED:
            log.error("%s refused to go on; read %s", one.program.name, one.program.log)
            return replace(one, refused=True)
        failures = 1 if now - one.since > STEADY else one.failures + 1
        wait = min(LONGEST, 0.2 * 2.0 ** min(failures - 1, 16))
        log.warning("%s ended with %d; restart in %.1f s", one.program.name, code, wait)
        return replace(one, process=None, failures=failures, due=now + wait)

    def _spawn_all(self, programs: Sequence[Program]) -> None:
        for program in programs:
            self._running[program.name] = _spawned(_Running(program))

    def _end_all(self) -> None:
        for rank in sorted({one.program.rank for one in self._running.values()}, reverse=True):
            _end([one.process for one in self._running.values() if one.process and one.program.rank == rank])
        self._over.set()


def descendants(pid: int) -> list[int]:
    """Processes that `pid` started, and theirs, while it is alive or not yet waited for."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = list(children.get(pid, []))
    for one in found:
        found.extend(children.get(one, []))
    return found


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL to each that is still there."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _spawned(one: _Running) -> _Running:
    program = one.program
    program.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    program.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    bound = [sys.executable, "-I", "-S", child.__file__, str(os.getpid())]
    with program.log.open("ab") as output:
        process = subprocess.Popen(
            [*program.prefix, *bound, *program.command],
            cwd=program.folder,
            env=dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return replace(one, process=process, since=time.monotonic())


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    begun = [pid for process in processes for pid in descendants(process.pid)]
    for process in processes:
        _signal_group(process, signal.SIGTERM)
    end = time.monotonic() + TERM_SECONDS
    while time.monotonic() < end and any(process.poll() is None for process in processes):
        time.sleep(0.02)
    for process in processes:
        _signal_group(process, signal.SIGKILL)
        process.wait()
    kill_all(begun)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
