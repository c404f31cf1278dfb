"""What a measurement is asked for, what it found, and how CPU time and memory are taken."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Role = Literal["site", "unmasking", "server"]
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One round to measure.

    d        parameters
    n        sites asked
    dropout  share of them that never reports
    """

    d: int
    n: int
    dropout: float

    @property
    def lost(self) -> frozenset[int]:
        """Positions, 0 to n - 1, of the sites that never report: spread evenly."""
        count = round(self.n * self.dropout)
        return frozenset(place * self.n // count for place in range(count)) if count else frozenset()

    @property
    def reporting(self) -> int:
        """Sites that report."""
        return self.n - len(self.lost)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one role of one round cost.

    m            masks on one report; Flower: pair masks and the site's own
    cpu_seconds  of one site, of one unmasking site, or of the server for the whole round
    bytes_up     what one site or one unmasking site sends; server: what it receives from all of them
    bytes_down   what it is sent beside model and keys: the set of reports, the shares of others; server: as bytes_up
    repeats      measurements that the least was taken of
    computed     not measured whole: measured parts, multiplied by how often the protocol needs them
    peak_mb      most memory of this process while the round was played, all of its roles together (MiB)
    threshold    Flower: shares that rebuild a secret
    """

    peer: str
    role: Role
    d: int
    n: int
    m: int
    dropout: float
    cpu_seconds: float
    bytes_up: int
    bytes_down: int = 0
    repeats: int = 1
    computed: bool = False
    peak_mb: float | None = None
    threshold: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values; what is not known of a role is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Stopwatch:
    """CPU seconds of this process by name: each with its total and its least single run."""

    def __init__(self) -> None:
        self.total: dict[str, float] = {}
        self.least: dict[str, float] = {}
        self.last: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what is done inside for `name`."""
        begun = time.process_time()
        yield
        self.add(name, time.process_time() - begun)

    def add(self, name: str, took: float) -> None:
        """One run of `name`."""
        self.last[name] = took
        self.total[name] = self.total.get(name, 0.0) + took
        self.least[name] = min(self.least.get(name, took), took)


def least(act: Callable[[], Any], repeats: int) -> float:
    """Least CPU seconds of `repeats` runs."""
    watch = Stopwatch()
    for _ in range(repeats):
        with watch("act"):
            act()
    return watch.least["act"]


def forget_peak() -> None:
    """Begin to look for the most memory anew, where the system can (Linux)."""
    with suppress(OSError):
        _RESET.write_text("5")


def peak_mb() -> float:
    """Most memory of this process since `forget_peak`, or since it began (MiB)."""
    with suppress(OSError, StopIteration):
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return round(int(line.split()[1]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
