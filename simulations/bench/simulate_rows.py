"""A row of `bench simulate`: one engine or peer on one kind of round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

BARE = "bare-loop"
Advance = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class SimulationRow:
    """One engine on one kind of round.

    cpu_seconds_per_round  the least of all rounds but the first    ratio_floor  to that of the bare loop
    ratio_median           median over rounds of the ratio to the bare loop's same round
    updates_per_second     sites taught in a CPU second
    peak_mb                most memory of a process of its own that plays two rounds, data included (MiB)
    first_round_seconds    CPU seconds of that process until its first round was over, imports included, data not
    """

    work: str
    engine: str
    cpu_seconds_per_round: float
    ratio_floor: float
    ratio_median: float
    updates_per_second: float
    peak_mb: float | None
    first_round_seconds: float | None
    repeats: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def readable(self) -> dict[str, str]:
        """The row in units that a person reads."""
        shown = {
            "work": self.work,
            "engine": self.engine,
            "CPU a round": f"{1e3 * self.cpu_seconds_per_round:.0f} ms",
            "times bare": f"{self.ratio_floor:.2f}",
            "sites a second": f"{self.updates_per_second:.0f}",
        }
        if self.peak_mb is not None:
            shown |= {"memory": f"{self.peak_mb:.0f} MB", "first round": f"{self.first_round_seconds:.1f} s"}
        return shown
