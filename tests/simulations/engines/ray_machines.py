"""Machines of a Ray cluster on loopback for tests: each a raylet with an object store and a processor of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from ray._raylet import GcsClient

RAY = Path(sys.executable).parent / "ray"
START_SECONDS = 120.0


class Machine:
    """One machine, started as the documentation says; `end` takes it away with all that runs on it."""

    def __init__(self, folder: Path, *words: str):
        command = [
            RAY,
            "start",
            "--block",
            "--disable-usage-stats",
            "--num-cpus",
            "1",
            "--include-log-monitor",
            "false",
        ]
        self._log = (folder / f"{len(list(folder.glob('*.log')))}.log").open("wb")
        self._process = subprocess.Popen(
            [*map(str, command), *words], stdout=self._log, stderr=self._log, start_new_session=True
        )

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        with suppress(psutil.NoSuchProcess):
            for each in [*psutil.Process(self._process.pid).children(recursive=True), self._process]:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(how)
        self._process.wait(30)
        self._log.close()


class Machines:
    """A cluster of two machines."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.head = Machine(folder, "--head", "--port", "0", "--include-dashboard", "false", "--temp-dir", str(folder))
        told = folder / "ray_current_cluster"
        until(lambda: told.exists() and bool(told.read_text()))
        self.address = told.read_text()
        self.second = Machine(folder, "--address", self.address)
        until(lambda: len(GcsClient(address=self.address).get_all_node_info()) == 2)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < end, "the cluster did not start"
        time.sleep(0.1)


@contextmanager
def machines() -> Iterator[Machines]:
    folder = Path(tempfile.mkdtemp(prefix="hushfed-test-", dir="/tmp"))
    made: list[Machine] = []
    try:
        found = Machines(folder)
        made = [found.second, found.head]
        yield found
    finally:
        for each in made:
            each.end()
        shutil.rmtree(folder, ignore_errors=True)


def left_behind() -> list[str]:
    """Processes and folders that an engine started here and did not take away."""
    children = [each.name() for each in psutil.Process(os.getpid()).children(recursive=True)]
    ours = [name for name in children if name.startswith(("raylet", "gcs_server", "ray::"))]
    return [*ours, *map(str, Path(tempfile.gettempdir()).glob("hushfed-ray-*"))]
