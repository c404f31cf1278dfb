"""The file of a ledger: locked, opened, and the very same as long as it is open."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from common.errors import Code, Refusal
from common.privacy.entries import tampered

_TABLES = """
CREATE TABLE IF NOT EXISTS lines
    (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, hash BLOB NOT NULL, signature BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS salts (seq INTEGER PRIMARY KEY, salt BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS replies (request TEXT PRIMARY KEY, seq INTEGER NOT NULL, reply BLOB NOT NULL);
"""
_LAST = "SELECT seq, hash FROM lines ORDER BY seq DESC LIMIT 1"


class LedgerFile:
    """An open database and the files that it is in: its own, and the journal that holds its newest lines.

    The operating system lets an open file be deleted or replaced; what is written into it then ends with the process.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.connection = connection
        real = path.resolve()
        self._files = {part: _identity(part) for part in (path, real.with_name(f"{real.name}-wal"))}
        self._path = path
        self._size = path.stat().st_size

    def refuse_moved(self, lines: int, head: bytes) -> None:
        """Refuse unless the paths lead to the files that are open, none shorter, their last of so many lines `head`.

        Errors: Refusal LEDGER_ROLLED_BACK, LEDGER_TAMPERED.
        """
        for path, known in self._files.items():
            if known is not None and (found := _identity(path)) != known:
                raise _moved(path, "replaced" if found else "deleted")
        if (size := self._path.stat().st_size) < self._size:
            raise _moved(self._path, "cut")
        self._size = size
        try:
            last = self.connection.execute(_LAST).fetchone()
        except sqlite3.DatabaseError:
            raise tampered(f"Ledger {self._path}", "the file was damaged while the agent was at work") from None
        if last != ((lines - 1, head) if lines else None):
            raise _moved(self._path, "changed")


def locked(path: Path) -> int:
    """An exclusive lock beside the file, for as long as this process lives. Errors: Refusal LEDGER_LOCKED."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise Refusal(
            Code.LEDGER_LOCKED, f"Ledger {path} not opened", "another process holds it", "Stop the other agent first"
        ) from None
    return handle


def unlock(handle: int) -> None:
    """Let go of what `locked` gave, also where a process that was forked off still has the file."""
    fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def connected(path: Path, *, durable: bool = True) -> sqlite3.Connection:
    """The database at `path`, or a new one. Errors: Refusal LEDGER_TAMPERED if the path is no file's.

    durable  a commit is on disk when it returns; else it outlives the process, but not the machine
    """
    refuse_no_file(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
    connection.executescript(_TABLES)
    return connection


def refuse_no_file(path: Path) -> None:
    """Refuse a folder, pipe or device where a ledger belongs; nothing there is no fault. Errors: LEDGER_TAMPERED."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise tampered(f"Ledger {path}", f"{kind} lies in its place")


def rolled_back(why: str, do: str = "Restore the newest copy; what was spent cannot be forgotten") -> Refusal:
    """The refusal of a ledger that has forgotten something."""
    return Refusal(Code.LEDGER_ROLLED_BACK, "Ledger not used", why, do)


def _moved(path: Path, how: str) -> Refusal:
    why = f"{path} was {how} while the agent was at work"
    return rolled_back(why, "Stop the agent, put the newest copy back, and start it again")


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None if there is nothing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
