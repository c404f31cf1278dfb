"""Machines of a Ray cluster on loopback for tests: each a raylet with an object store and a processor of its own."""

from __future__ import annotations

import json
import shutil
import signal
import socket
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
CONFIG = {
    "automatic_object_spilling_enabled": False,
    "health_check_initial_delay_ms": 0,  # a machine that is gone is missed after some seconds, not half a minute
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}


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

    def worker(self) -> psutil.Process:
        """The process of Flower's actor."""
        (found,) = [each for each in psutil.Process(self._process.pid).children(recursive=True) if is_worker(each)]
        return found

    def runs(self) -> bool:
        """Errors: AssertionError with its last words if it has ended."""
        assert self._process.poll() is None, Path(self._log.name).read_text()[-2000:]
        return True

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        with suppress(psutil.NoSuchProcess):
            for each in [*psutil.Process(self._process.pid).children(recursive=True), self._process]:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(how)
        self._process.wait(30)
        self._log.close()


class Machines:
    """A cluster of two machines; `made` has those that were started, whatever came of it."""

    def __init__(self, folder: Path, made: list[Machine]):
        self.folder = folder
        words = ["--head", "--port", "0", "--ray-client-server-port", str(free_port()), "--include-dashboard", "false"]
        self.head = Machine(folder, *words, "--temp-dir", str(folder), "--system-config", json.dumps(CONFIG))
        made.append(self.head)
        told = folder / "ray_current_cluster"
        until(lambda: self.head.runs() and told.exists() and bool(told.read_text()))
        self.address = told.read_text()
        self.second = Machine(folder, "--address", self.address)
        made.append(self.second)
        until(lambda: len(GcsClient(address=self.address).get_all_node_info()) == 2)


def is_worker(process: psutil.Process) -> bool:
    """Whether it is an actor of Flower."""
    with suppress(psutil.Error):
        return "ClientAppActor" in " ".join(process.cmdline())
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < end, "the cluster did not start"
        time.sleep(0.1)


@contextmanager
def machines() -> Iterator[Machines]:
    folder = Path(tempfile.mkdtemp(prefix="hf-", dir="/tmp"))
    made: list[Machine] = []
    try:
        yield Machines(folder, made)
    finally:
        for each in reversed(made):
            each.end()
        shutil.rmtree(folder, ignore_errors=True)


def left_behind(folder: Path) -> set[str]:
    """What is there of a cluster that this process itself has started with its folder under `folder`."""
    ours = {each.name() for each in psutil.Process().children()} & {"raylet", "gcs_server"}
    return ours | {each.name.rpartition("-")[0] for each in folder.glob("hushfed-*")}
