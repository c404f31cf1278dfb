"""What a coordinator is doing just now, for whoever watches; and that it is the only one at its run."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common.lock import Held, Purpose, hold
from common.orders import Task
from common.status_file import write_status
from common.work import Work
from server.checkpoints import State

LOCK, PROGRESS = "coordinator.lock", "progress.json"


def be_alone(state: Path) -> Held:
    """Hold the folder of a run while this process plays it. Errors: Refusal ALREADY_RUNNING."""
    harm = "two would charge the sites twice and overwrite each other's rounds"
    return hold(state / LOCK, Purpose(by="coordinator", what="Run not played", harm=harm))


class Progress:
    """Keeps a small file up to date; nothing is decided by it."""

    def __init__(self, state: Path, work: Work, job: Path) -> None:
        self._file, self._work = state / PROGRESS, work
        self._always = {"pid": os.getpid(), "job": str(job), "of": work.job.rounds}
        self._attempts: Counter[tuple[Task, int]] = Counter()

    def waiting(self) -> None:
        """The job is offered, or sites are waited for."""
        self._write(stage="waiting for sites")

    def begun(self, task: Task, state: State) -> None:
        """An attempt at the next round, or at the counts of the newest model, begins."""
        number = len(state.rounds) + (task == "train")
        self._attempts[task, number] += 1
        self._write(
            stage="training" if task == "train" else "counting",
            round=number,
            attempt=self._attempts[task, number],
            failed_attempts=state.spent.get(task, 0),
            spare_attempts=self._work.spare(task),
        )

    def closing(self) -> None:
        """The rounds are over; ledgers are collected."""
        self._write(stage="collecting ledgers")

    def _write(self, **news: Any) -> None:
        write_status(self._file, {**self._always, "since": round(time.time(), 3), **news})
