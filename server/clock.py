"""How a coordinator tells and spends time: by the system's clock, or by one that a simulated world winds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Seconds since some moment of the past; they never go back.

    look_seconds  how long to wait before looking again for what nobody announces
    """

    @property
    def look_seconds(self) -> float: ...

    def now(self) -> float:
        """The time, in seconds."""

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""


@dataclass(frozen=True)
class SystemClock:
    """The clock of a deployment."""

    look_seconds: float = 0.2

    def now(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        time.sleep(seconds)


SYSTEM = SystemClock()
