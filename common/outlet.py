"""Standard output and what may be wrong with it: closed, full, or of few letters."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from pathlib import Path


class Unheard(Exception):
    """Standard output took less than was said.

    closed  its reader went away, as `| head` does; otherwise it is full or broken, and `why` says how
    """

    def __init__(self, error: OSError):
        super().__init__(error.strerror or "it cannot be written to")
        self.closed = error.errno == errno.EPIPE
        self.why = (error.strerror or "it cannot be written to").lower()


def prepare() -> None:
    """Make the streams take every text: a letter they cannot write becomes its escape; a stream that is closed
    from the start swallows what it is told, as it does for every program.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Write `text` to standard output, at once. Errors: Unheard."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        silence()
        raise Unheard(error) from None


def silence() -> None:
    """Let go of standard output, so that the end of the process does not try to write the rest again."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
