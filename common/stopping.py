"""Ctrl-C and SIGTERM of a command that starts processes and then stays."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any


class Stopping:
    """Inside, the first Ctrl-C or SIGTERM raises KeyboardInterrupt, and every later one is ignored.

    So a start that waits ends at once, and the taking down of what was started is not cut short. `wait` returns when
    the signal comes. In the main thread only; the handlers of before are put back at the end.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._heard, self._before = False, dict[int, Any]()

    def __enter__(self) -> Stopping:
        self._before = {number: signal.signal(number, self._hear) for number in self._SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self) -> None:
        """Return when somebody asks the command to end."""
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600.0)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if not self._heard:
            self._heard = True
            raise KeyboardInterrupt
