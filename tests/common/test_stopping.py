"""Ctrl-C and SIGTERM while something starts, while it runs, and while it is taken down."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from common.stopping import Stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_is_interrupted_once_and_its_undoing_never(number: int) -> None:
    """Must: raise where the start waits. Must not: raise again while what was started is taken down."""
    before = signal.getsignal(number)
    undone = []

    def start() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(30)
        finally:
            os.kill(os.getpid(), number)
            time.sleep(0.05)
            undone.append(True)

    with pytest.raises(KeyboardInterrupt), Stopping():
        start()
    assert undone == [True]
    assert signal.getsignal(number) is before


def test_what_runs_ends_when_it_is_asked_to() -> None:
    with Stopping() as stopping:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        stopping.wait()
