"""One process at a time for one folder: a lock that the kernel frees when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from common.errors import Code, Refusal

TRY_SECONDS = 0.5  # a holder that was killed a moment ago, or somebody who only looks, is gone by then
LOOK_SECONDS = 0.02
_NOTE_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """What a lock is for, in the words of its refusal.

    by    the command that holds it        what  what a second one is refused
    harm  what it would do beside the first
    """

    by: str
    what: str
    harm: str


def site_lock(run: Path) -> Path:
    """The lock of a site's processes: beside the folder `run` where they say how they fare, in the state folder."""
    return run.parent / "site.lock"


def alone(site: str, by: str) -> Purpose:
    """Whoever starts a site's agent and link."""
    harm = "a second agent and link would take its orders and leave them unanswered"
    return Purpose(by=by, what=f"Site {site!r} not started", harm=harm)


class Held:
    """A lock of this process; `hold` makes one. A context manager, or `release`."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def release(self) -> None:
        """Let the next one in. May be repeated. The file stays: a removed one could be locked twice."""
        if self._handle >= 0:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
        self._handle = -1

    def __enter__(self) -> Held:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def hold(path: Path, purpose: Purpose) -> Held:
    """Hold the lock at `path` until it is released or this process ends, by whatever signal.

    Child processes do not inherit it. The file says who holds it; only the lock itself decides.
    Errors: Refusal ALREADY_RUNNING with the holder's process id and what to do; FILE_UNWRITABLE where the file system
    cannot lock. OSError where the file cannot be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _taken(handle, TRY_SECONDS):
            raise _refusal(purpose, _note(handle))
        note = {"by": purpose.by, "pid": os.getpid(), "since": round(time.time(), 3)}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(note).encode(), 0)
    except BaseException:
        os.close(handle)
        raise
    return Held(handle)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock at `path` now."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _taken(handle, 0.0)
    finally:
        os.close(handle)


def _taken(handle: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(LOOK_SECONDS)
        except OSError as error:
            why = f"its file system cannot lock: {(error.strerror or 'it refuses').lower()}"
            raise Refusal(Code.FILE_UNWRITABLE, "Lock not taken", why, "Keep the folder on a local disk") from None
        else:
            return True


def _note(handle: int) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        note = json.loads(os.pread(handle, _NOTE_BYTES, 0))
        if isinstance(note, dict):
            return note
    return {}


def _refusal(purpose: Purpose, note: dict[str, Any]) -> Refusal:
    pid, by, since = note.get("pid"), note.get("by"), note.get("since")
    if isinstance(pid, int) and isinstance(by, str) and isinstance(since, float):
        when = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        who, do = f"`{by}` has been running since {when} as process {pid}", f"Use that one, or stop it (kill {pid})"
    else:
        who, do = "another process is at it", "Use that one, or stop it"
    return Refusal(Code.ALREADY_RUNNING, purpose.what, f"{who}; {purpose.harm}", do)
