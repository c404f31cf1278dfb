"""Cells for tests of the machinery: figures from the seeds at once, and every way in which a cell can end."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from common.errors import Code, Refusal
from simulations.study.results import Result, failure_of

PLAYER = f"{__name__}:play"
CRASH, KILLED, DIVERGED, REFUSED, FULL = 66.0, 67.0, 77.0, 88.0, 99.0  # learning rates that end a cell this way


def study_table(**changes: Any) -> dict[str, Any]:
    """A study of the clinics without privacy: two splits, three seeds."""
    from common.config import read_table
    from simulations.scenario import example

    scenario = read_table(example("clinics"))
    scenario["job"]["privacy"] = {"mode": "none"}
    scenario["job"]["aggregation"] |= {"bits": 24, "bound": 2.0}
    grid = {"job.training.learning_rate": [0.25, 0.5]}
    return {"name": "fake", "scenario": scenario, "seeds": {"n": 3, "root": 1}, "grid": grid, **changes}


def play(form: bytes, folder: Path) -> Result:
    """A result that depends on the scenario alone; the environment may make it slow."""
    scenario = json.loads(form)["scenario"]
    rate = scenario["job"]["training"]["learning_rate"]
    private = scenario["job"]["privacy"]["mode"] != "none"
    (folder / "run").mkdir()
    (folder / "run" / "big").write_bytes(bytes(100_000))
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    if rate == CRASH:
        os._exit(7)
    if rate == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if rate == FULL and not Path(os.environ["FAKE_ROOM"]).exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if rate in (DIVERGED, REFUSED):
        code = Code.UPDATE_INVALID if rate == DIVERGED else Code.RUN_FAILED
        return failure_of(Refusal(code, "Round 1 not played", "it was asked for", "Ask otherwise"))
    accuracy = 0.9 + rate / 1000 - private / 10 + _spread(scenario["world"]["seed"])
    metrics = {"accuracy": accuracy, "pooled_accuracy": 0.95, "alone_accuracy": 0.8}
    return Result(status="completed", metrics=metrics | {"epsilon": 2.0 if private else None}, seconds=time.time())


def _spread(seed: int) -> float:
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "big") / 2**32 / 100


def main(folder: str, count: str) -> None:
    """Play the study in `folder` with so many workers, as a process of its own."""
    from simulations.study.cells import cells_of, rows_of
    from simulations.study.store import Store
    from simulations.study.sweep import Sweep, planned, sweep

    store = Store(Path(folder))
    sweep(store, cells_of(rows_of(planned(store))), Sweep(PLAYER, "code"), workers=int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
