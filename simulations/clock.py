"""A clock that stands still until somebody waits: a week of a world passes in minutes, and the same way each time."""

from __future__ import annotations


class SimulatedClock:
    """`server.clock.Clock` of a world. It begins at 0."""

    look_seconds = 60.0

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """See `Clock`."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """See `Clock`: nobody waits, it is later."""
        self._now += max(0.0, seconds)

    def reach(self, moment: float) -> None:
        """Be at least at this moment."""
        self._now = max(self._now, moment)
