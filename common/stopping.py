"""Ctrl-C and SIGTERM of a command that starts processes and then stays."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

LOOK_SECONDS = 0.2


class Stopping:
    """Inside, the first Ctrl-C or SIGTERM raises KeyboardInterrupt, and every later one is ignored.

    So a start that waits ends at once, and the taking down of what was started is not cut short. After `settled` it
    raises no more, and `wait` returns when the signal comes. In the main thread only; the handlers of before are put
    back at the end.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._heard, self._settled, self._before = False, False, dict[int, Any]()

    def __enter__(self) -> Stopping:
        self._before = {number: signal.signal(number, self._hear) for number in self._SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def settled(self) -> None:
        """The start is over: from now on a signal is the end that was expected. Before anybody is told so."""
        self._settled = True

    def wait(self, look: Callable[[], None] = lambda: None) -> None:
        """Return when somebody asks the command to end. Errors: what `look`, called again and again, raises."""
        self.settled()
        while not self._heard:
            look()
            time.sleep(LOOK_SECONDS)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        first, self._heard = not self._heard, True
        if first and not self._settled:
            raise KeyboardInterrupt
