"""The rounds that a peer is to play, from the files that were left for it, and what they took: all of its processes."""

from __future__ import annotations

import json
import os
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

TAG = "HUSHFED_BENCH"  # a variable in the environment of every process of a peer


class PeerWork:
    """One kind of round: settings by name, as `simulate_works.Setting` has them, and the records of all sites.

    inputs  float32 [sites, records, 1, 28, 28], mapped from the file, so that processes share it
    labels  int64 [sites, records]      start  float32 [d], the parameters before the first round
    """

    def __init__(self, folder: Path):
        settings = json.loads((folder / "work.json").read_text())
        self.population, self.cohort = int(settings["population"]), int(settings["cohort"])
        self.batch, self.rate, self.rounds = int(settings["batch"]), float(settings["rate"]), int(settings["rounds"])
        self.clip: float | None = settings["clip"]
        self.noise, self.local = float(settings["noise"]), bool(settings["local"])
        self.inputs = torch.from_numpy(np.load(folder / "inputs.npy", mmap_mode="c"))
        self.labels = torch.from_numpy(np.load(folder / "labels.npy"))
        self.start = torch.from_numpy(np.load(folder / "start.npy"))

    def begin(self, model: nn.Module) -> nn.Module:
        """`model` with the parameters before the first round."""
        nn.utils.vector_to_parameters(self.start.clone(), model.parameters())
        return model

    def train(self, model: nn.Module, site: int) -> None:
        """One epoch of plain steps over the site's records in their order."""
        optimizer = torch.optim.SGD(model.parameters(), lr=self.rate)
        for first in range(0, self.inputs.shape[1], self.batch):
            rows = slice(first, first + self.batch)
            optimizer.zero_grad()
            functional.cross_entropy(model(self.inputs[site, rows]), self.labels[site, rows]).backward()  # type: ignore[no-untyped-call]  # torch
            optimizer.step()

    def loss(self, model: nn.Module) -> float:
        """Mean over the records of the first sites."""
        with torch.no_grad():
            return float(functional.cross_entropy(model(self.inputs[:20].flatten(0, 1)), self.labels[:20].flatten()))


@lru_cache(maxsize=1)
def work_of(folder: str) -> PeerWork:
    """The rounds in `folder`, read once in a process, which keeps to one thread."""
    torch.set_num_threads(1)
    return PeerWork(Path(folder))


class Clock:
    """CPU seconds of all processes of this peer: before the first round, and after each."""

    def __init__(self) -> None:
        self.readings: list[float] = []

    def tick(self) -> None:
        """Read it."""
        self.readings.append(_cpu_seconds())


def tell(clock: Clock, before: float, after: float, **more: Any) -> None:
    """What was found, as the last line of standard output."""
    sys.stdout.write(json.dumps({"readings": clock.readings, "before": before, "after": after, **more}) + "\n")
    sys.stdout.flush()


def _cpu_seconds() -> float:
    """Of every process with our tag in its environment, daemons that are nobody's children too, and ended ones."""
    ended = os.times()
    ticks, total = os.sysconf("SC_CLK_TCK"), time.process_time() + ended.children_user + ended.children_system
    tag = f"{TAG}={os.environ[TAG]}".encode()
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            try:
                if tag in (place / "environ").read_bytes().split(b"\0"):
                    fields = (place / "stat").read_text().rpartition(")")[2].split()
                    total += sum(map(int, fields[11:15])) / ticks  # its own and of children that it waited for
            except OSError:  # it has just ended, or is another user's
                continue
    return total
