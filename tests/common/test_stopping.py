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


def test_a_signal_between_the_start_and_the_waiting_is_the_end_that_was_expected() -> None:
    """Must not: raise once others were told that it runs."""
    with Stopping() as stopping:
        stopping.settled()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        stopping.wait()


def test_what_is_looked_at_while_it_runs_may_end_it() -> None:
    def look() -> None:
        raise LookupError

    with pytest.raises(LookupError), Stopping() as stopping:
        stopping.wait(look)
