"""The tables of a key store, version by version, in a database that forgets what is deleted."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from common.errors import Code, Refusal

EMPTY_JOURNAL = "PRAGMA wal_checkpoint(TRUNCATE)"  # deleted bytes stay in the journal until then
_TABLES = """
CREATE TABLE session (sid BLOB PRIMARY KEY, record BLOB NOT NULL, job BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE seed (sid BLOB NOT NULL, number INTEGER NOT NULL, seed BLOB NOT NULL, PRIMARY KEY (sid, number));
CREATE TABLE reported (sid BLOB NOT NULL, number INTEGER NOT NULL, binding BLOB NOT NULL, PRIMARY KEY (sid, number));
CREATE TABLE answered (
    place INTEGER PRIMARY KEY, sid BLOB NOT NULL, number INTEGER NOT NULL, binding BLOB NOT NULL UNIQUE,
    set_digest BLOB NOT NULL, members TEXT NOT NULL, total BLOB, UNIQUE (sid, number));
"""
_LEDGER_HEADS = """
CREATE TABLE ledger_head (dataset TEXT PRIMARY KEY, head BLOB NOT NULL) WITHOUT ROWID;
"""
_SHARES = """
CREATE TABLE box (
    sid BLOB PRIMARY KEY, secret BLOB, boxes BLOB, parcels BLOB, kept BLOB,
    CHECK (boxes IS NULL OR parcels IS NOT NULL));
CREATE TABLE share (
    sid BLOB NOT NULL, number INTEGER NOT NULL, dealer INTEGER NOT NULL, share BLOB NOT NULL,
    PRIMARY KEY (sid, number, dealer));
CREATE TABLE released (sid BLOB NOT NULL, number INTEGER NOT NULL, lost TEXT NOT NULL, PRIMARY KEY (sid, number));
"""
_TIMES = """
CREATE TABLE enrolled (sid BLOB PRIMARY KEY, wall REAL NOT NULL) WITHOUT ROWID;
"""
_BINDINGS = """
CREATE INDEX reported_binding ON reported (binding);
"""
STEPS = (_TABLES, _LEDGER_HEADS, _SHARES, _TIMES, _BINDINGS)  # what each version added to the one before it
VERSION = len(STEPS)


def connected(path: Path | None, *, durable: bool = True) -> sqlite3.Connection:
    """A connection that syncs every commit and overwrites what it deletes; without a path, a database in memory.

    durable  syncs; else a commit outlives the process, but not the machine
    Errors: Refusal CONFIG_INVALID for a file that is damaged, of another kind, or of a newer release.
    """
    if path is not None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    # The caller passes one order at a time, but not always from the same thread.
    connection = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
    try:
        synchronous = f"synchronous = {'FULL' if durable else 'OFF'}"
        for setting in ("journal_mode = WAL", synchronous, "secure_delete = ON", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {setting}").fetchall()
        _prepare(connection)
        connection.execute(EMPTY_JOURNAL).fetchall()
    except sqlite3.DatabaseError:
        connection.close()
        why = "its database is damaged or of another kind"
        raise Refusal(Code.CONFIG_INVALID, "Key store not opened", why, "Delete the store and join anew") from None
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Add the tables of every version that it does not have yet. Errors: Refusal CONFIG_INVALID for a newer one."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if 0 <= version < VERSION:
        steps = "".join(STEPS[version:])
        connection.executescript(f"BEGIN;{steps}PRAGMA user_version = {VERSION};COMMIT;")
    elif version != VERSION:
        why = f"it is of version {version}, this release reads version {VERSION}"
        raise Refusal(Code.CONFIG_INVALID, "Key store not opened", why, "Install the release that wrote it")
