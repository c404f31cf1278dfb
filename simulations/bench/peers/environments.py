"""Peers in environments of their own: built once by pip in a folder, then asked to play the rounds of a work."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import Code, Refusal
from common.parameters import flatten
from simulations.bench.peers.peer_work import TAG
from simulations.bench.simulate_works import NOISE, RATE, Population, Setting

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"
LONGEST = 1800.0  # seconds that the rounds of one work may take


@dataclass(frozen=True)
class Peer:
    """Another system. packages: what pip installs beside torch; script: what plays the rounds there."""

    title: str
    packages: tuple[str, ...]
    script: str
    local: bool  # whether its sites can add noise for single records


PEERS: Mapping[str, Peer] = {
    "pfl": Peer("pfl-research 0.6.0", ("pfl==0.6.0",), "pfl_rounds.py", local=False),
    "flower-ray": Peer(
        "Flower 1.41 on Ray", ("flwr[simulation]==1.41.0", "opacus==1.6.0"), "flower_rounds.py", local=True
    ),
}


@dataclass(frozen=True)
class Played:
    """What a peer took for its rounds.

    rounds  CPU seconds of each, all its processes together      first  until the first was over, imports included
    peak_mb most memory of all its processes together (MiB), shared pages counted once
    """

    rounds: tuple[float, ...]
    first: float
    peak_mb: float


def built(peer: Peer, folder: Path) -> Path:
    """The python of the peer's environment under `folder`, made by pip if it is not there. Errors: PROCESS_FAILED."""
    place = folder / peer.script.removesuffix("_rounds.py")
    python, done = place / "bin" / "python", place / ".installed"
    if not done.exists():
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        for command in ([sys.executable, "-m", "venv", str(place)], [*pip, TORCH], [*pip, *peer.packages]):
            _run(command, f"Environment of {peer.title} not built")
        done.touch()
    return python


def left_for(setting: Setting, data: Population, rounds: int, folder: Path) -> Path:
    """The files from which a peer plays: records, parameters before the first round, settings. Result: `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "inputs.npy", data.inputs.numpy())
    np.save(folder / "labels.npy", data.labels.numpy())
    np.save(folder / "start.npy", flatten(setting.course().model))
    named = {name: value for name, value in asdict(setting).items() if name != "model"}
    (folder / "work.json").write_text(json.dumps({**named, "rate": RATE, "noise": NOISE, "rounds": rounds}))
    return folder


def played(peer: Peer, python: Path, work: Path) -> Played:
    """The rounds of the files in `work` as the peer plays them.

    Errors: Refusal PROCESS_FAILED if it ends without a result, or its model has not learned: it did other work.
    """
    tag, watch = secrets.token_hex(8), threading.Event()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))},
        TAG: tag,
        "PYTHONPATH": str(HERE),
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "FLWR_TELEMETRY_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    peak = _Peak(tag, watch)
    peak.start()
    try:
        command = [str(python), str(HERE / peer.script), str(work)]
        said = _run(command, f"{peer.title} not measured", environment, work)
    finally:
        watch.set()
        peak.join()
        _end_all(tag)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    if not found["after"] < found["before"]:
        why = f"its loss went from {found['before']:.4g} to {found['after']:.4g}: it did other work"
        raise Refusal(Code.PROCESS_FAILED, f"{peer.title} not measured", why, "Report this")
    readings = found["readings"]
    rounds = tuple(float(each) for each in np.diff(readings))
    return Played(rounds[1:], float(readings[1]), peak.mb)


class _Peak(threading.Thread):
    """Looks at the memory of all processes with a tag until it is told to stop."""

    def __init__(self, tag: str, stop: threading.Event):
        super().__init__(daemon=True)
        self._tag, self._stop_looking, self.mb = tag, stop, 0.0

    def run(self) -> None:
        """See class."""
        while not self._stop_looking.wait(0.5):
            self.mb = max(self.mb, sum(_share_kb(process) for process in _tagged(self._tag)) / 1024)


def _share_kb(process: int) -> int:
    """Its memory, of shared pages only its share."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _tagged(tag: str) -> list[int]:
    found, mark = [], f"{TAG}={tag}".encode()
    for place in Path("/proc").iterdir():
        with suppress(OSError):  # it has just ended, or is another user's
            if place.name.isdigit() and mark in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def _end_all(tag: str) -> None:
    """Nothing of the peer is left, its daemons included."""
    end = time.monotonic() + 10.0
    while (left := _tagged(tag)) and time.monotonic() < end:
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


def _run(command: list[str], what: str, environment: Mapping[str, str] | None = None, at: Path | None = None) -> str:
    """Standard output of a command. Errors: Refusal PROCESS_FAILED with the last line that it complained with."""
    with (
        tempfile.TemporaryFile("w+") as said,
        tempfile.TemporaryFile("w+") as complained,
    ):  # daemons would keep pipes open
        try:
            done = subprocess.run(
                command, stdout=said, stderr=complained, check=False, env=environment, timeout=LONGEST, cwd=at
            )
        except subprocess.TimeoutExpired:
            why = f"it took more than {LONGEST:.0f} s"
            raise Refusal(Code.PROCESS_FAILED, what, why, "Measure fewer rounds") from None
        said.seek(0)
        complained.seek(0)
        output, complaints = said.read(), complained.read().strip().splitlines()
    if done.returncode or (environment and not output.strip()):
        told = (complaints or ["no message"])[-1]
        raise Refusal(Code.PROCESS_FAILED, what, told[:300], "Leave --peers out, or see what it needs")
    return output
