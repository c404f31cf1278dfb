"""The key store of a site: its identity, the seeds of its round keys, and what it has answered, in one folder.

Never restore it from a backup: an older copy has forgotten what this site already said. A lost store means
joining anew. Source: anytrust late masking, `alm-v1`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client.custody import Answer, Place
from client.key_tables import EMPTY_JOURNAL, connected
from client.share_store import FORGET_BEFORE, FORGET_EARLIER_SHARES, FORGET_SHARES, SqliteShares
from common.errors import Code, Refusal
from common.frames import pack, unpack
from common.identity import Signer
from common.secagg.keys import RoundSeed
from common.secagg.wire import MaskTotal

_LIMIT = 2**40  # bytes of a stored answer: it was ours
_OPENED = b"opened\n"  # in the lock, once there is a database that must not be lost
KEPT_SECONDS = 7 * 86400.0  # after which no secret of a session is kept, though its run may never have ended
_FORGET_EARLIER = (
    *FORGET_EARLIER_SHARES,
    "DELETE FROM seed WHERE sid IN (SELECT sid FROM session WHERE job = ? AND sid != ?)",
    "UPDATE answered SET total = NULL WHERE sid IN (SELECT sid FROM session WHERE job = ? AND sid != ?)",
)


class SqliteKeyStore:
    """A `KeyStore` on SQLite. Each change is one transaction, synced to disk before the call returns.

    Folder of mode 0700: `identity` (mode 0600), `state.sqlite`, `lock`. One process at a time.
    """

    def __init__(self, identity: Signer, connection: sqlite3.Connection, lock: int | None):
        self.identity = identity
        self._connection, self._lock = connection, lock
        self.shares = SqliteShares(connection, self._transaction)

    def __repr__(self) -> str:
        return f"SqliteKeyStore({self.identity!r})"

    @classmethod
    def create(cls, folder: Path) -> SqliteKeyStore:
        """A new store with a new identity. Errors: Refusal FILE_EXISTS if the folder holds an identity."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        Signer.generate().save(folder / "identity")
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path, *, durable: bool = True) -> SqliteKeyStore:
        """The store in `folder`. Errors: Refusal FILE_MISSING, KEYS_LOCKED, CONFIG_INVALID (mode, contents).

        durable  whether what is kept must outlive the machine's fall, and not only the process
        """
        identity = Signer.load(folder / "identity")
        _refuse_open_modes(folder)
        _refuse_lost(folder)
        lock = _locked(folder / "lock")
        try:
            store = cls(identity, connected(folder / "state.sqlite", durable=durable), lock)
            os.pwrite(lock, _OPENED, 0)
            os.fsync(lock)
        except BaseException:
            os.close(lock)
            raise
        store.forget_old(time.time())
        return store

    @classmethod
    def volatile(cls, identity: Signer) -> SqliteKeyStore:
        """A store in memory that ends with its process: for simulations, where no site is anybody's."""
        return cls(identity, connected(None), None)

    def close(self) -> None:
        """Release file and lock."""
        self._connection.close()
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # also where a process that was forked off still has the file
            os.close(self._lock)
            self._lock = None

    def pinned(self, sid: bytes) -> bytes | None:
        """h_R that this sid was first seen with."""
        row = self._row("SELECT record FROM session WHERE sid = ?", sid)
        return None if row is None else bytes(row[0])

    def seeds(self, sid: bytes) -> Mapping[int, RoundSeed]:
        """Round seeds of the session that are not erased, by number."""
        rows = self._connection.execute("SELECT number, seed FROM seed WHERE sid = ?", (sid,))
        return {number: RoundSeed(seed) for number, seed in rows}

    def seed(self, sid: bytes, number: int) -> RoundSeed | None:
        """The seed of one number, unless it is erased."""
        row = self._row("SELECT seed FROM seed WHERE sid = ? AND number = ?", sid, number)
        return None if row is None else RoundSeed(row[0])

    def enrol(self, place: Place, seeds: Mapping[int, RoundSeed], box: RoundSeed | None = None) -> None:
        """Pin the session and keep its secrets; erase those of the job's earlier ones. Refuses a sid that has any."""
        self.forget_old(time.time())
        with self._transaction() as cursor:
            self._pin(place)
            cursor.execute("INSERT OR IGNORE INTO enrolled VALUES (?, ?)", (place.sid, time.time()))
            for query in _FORGET_EARLIER:
                cursor.execute(query, (place.job, place.sid))
            try:
                rows = [(place.sid, number, seed.reveal()) for number, seed in sorted(seeds.items())]
                cursor.executemany("INSERT INTO seed VALUES (?, ?, ?)", rows)
                if box is not None:
                    cursor.execute("INSERT INTO box (sid, secret) VALUES (?, ?)", (place.sid, box.reveal()))
            except sqlite3.IntegrityError:
                raise _used(Code.E_ROUND, place.number) from None

    def last_reported(self, sid: bytes) -> int | None:
        """Largest number of the session that this site masked a report for."""
        row = self._row("SELECT max(number) FROM reported WHERE sid = ?", sid)
        return None if row is None or row[0] is None else int(row[0])

    def reported(self, sid: bytes, number: int) -> bytes | None:
        """What this site's report of the number was bound to."""
        row = self._row("SELECT binding FROM reported WHERE sid = ? AND number = ?", sid, number)
        return None if row is None else bytes(row[0])

    def reported_under(self, binding: bytes) -> bool:
        """Whether this site masked a report that was bound to this, in any session."""
        return self._row("SELECT 1 FROM reported WHERE binding = ?", binding) is not None

    def report(self, place: Place) -> None:
        """Pin the session, use up attempt and binding, erase what is of earlier attempts.

        Refuses an attempt not above the last, and a binding used before.
        """
        with self._transaction() as cursor:
            self._pin(place)
            last = self.last_reported(place.sid)
            if last is not None and place.attempt <= last:
                raise _used(Code.E_ROUND, place.number)
            if self.reported_under(place.binding):
                raise _used(Code.E_MODEL, place.number)
            cursor.execute("INSERT INTO reported VALUES (?, ?, ?)", (place.sid, place.number, place.binding))
            cursor.execute("DELETE FROM seed WHERE sid = ? AND number < ?", (place.sid, place.attempt))
            cursor.execute(FORGET_BEFORE, (place.sid, place.attempt))
            for query in _FORGET_EARLIER if last is None else ():
                cursor.execute(query, (place.job, place.sid))

    def answered(self, sid: bytes, number: int) -> Answer | None:
        """The answer given for the number."""
        query = "SELECT set_digest, members, total FROM answered WHERE sid = ? AND number = ?"
        row = self._row(query, sid, number)
        if row is None:
            return None
        total = None if row[2] is None else unpack(MaskTotal, row[2], _LIMIT)
        return Answer(set_digest=bytes(row[0]), members=_ids(row[1]), total=total)

    def bound(self, binding: bytes) -> tuple[bytes, int] | None:
        """Session and number of the answer over this binding."""
        row = self._row("SELECT sid, number FROM answered WHERE binding = ?", binding)
        return None if row is None else (bytes(row[0]), int(row[1]))

    def last_members(self, place: Place, count: int) -> tuple[frozenset[int], ...]:
        """Members of the sets answered in this attempt, and of the `count` before it for its job, in any session."""
        here = self._row("SELECT count(*) FROM answered WHERE sid = ? AND number >= ?", place.sid, place.attempt)
        query = "SELECT members FROM answered JOIN session USING (sid) WHERE job = ? ORDER BY place DESC LIMIT ?"
        rows = self._connection.execute(query, (place.job, count + (here[0] if here else 0)))
        return tuple(_ids(members) for (members,) in rows)

    def answer(self, place: Place, answer: Answer) -> None:
        """Keep the answer; erase the number's seed and what is of earlier attempts. Refuses a second answer."""
        total = None if answer.total is None else pack(answer.total)
        members = " ".join(map(str, sorted(answer.members)))
        with self._transaction() as cursor:
            self._pin(place)
            over = (place.sid, place.attempt)
            cursor.execute("UPDATE answered SET total = NULL WHERE sid = ? AND number < ? AND total IS NOT NULL", over)
            row = (place.sid, place.number, place.binding, answer.set_digest, members, total)
            try:
                cursor.execute("INSERT INTO answered VALUES (NULL, ?, ?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise _used(Code.E_SET, place.number) from None
            cursor.execute("DELETE FROM seed WHERE sid = ? AND (number = ? OR number < ?)", (*row[:2], place.attempt))
            cursor.execute(FORGET_BEFORE, over)

    def forget(self, sid: bytes) -> None:
        """Erase all secrets of the session: none of its open numbers will be answered any more."""
        self._forget_all([sid])

    def forget_job(self, job: bytes) -> None:
        """Erase all secrets of a job's sessions: its run is over."""
        self._forget_all([sid for (sid,) in self._connection.execute("SELECT sid FROM session WHERE job = ?", (job,))])

    def forget_old(self, now: float) -> None:
        """Erase the secrets of sessions that this site enrolled in over KEPT_SECONDS ago, whatever became of them."""
        query = "SELECT sid FROM enrolled WHERE wall < ?"
        self._forget_all([sid for (sid,) in self._connection.execute(query, (now - KEPT_SECONDS,))])

    def _forget_all(self, sids: Sequence[bytes]) -> None:
        if not sids:
            return
        with self._transaction() as cursor:
            for query in ("DELETE FROM seed WHERE sid = ?", "DELETE FROM enrolled WHERE sid = ?", *FORGET_SHARES):
                cursor.executemany(query, [(sid,) for sid in sids])

    def newest_head(self, dataset: str) -> bytes | None:
        """The newest head that the ledger of a data set (keyed hash of its name, hex) is known to have had."""
        row = self._row("SELECT head FROM ledger_head WHERE dataset = ?", dataset)
        return None if row is None else bytes(row[0])

    def remember_head(self, dataset: str, head: bytes) -> None:
        """Keep the ledger's head, so that an older copy of its file is known for one."""
        self._connection.execute("INSERT OR REPLACE INTO ledger_head VALUES (?, ?)", (dataset, head))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        """All or nothing, on disk at the end; what was deleted is gone from the journal too."""
        cursor = self._connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            yield cursor
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        self._commit(cursor)
        cursor.execute(EMPTY_JOURNAL).fetchall()

    def _commit(self, cursor: sqlite3.Cursor) -> None:
        cursor.execute("COMMIT")

    def _pin(self, place: Place) -> None:
        """Remember the session; a sid keeps the record that it was first seen with."""
        row = (place.sid, place.record, place.job)
        self._connection.execute("INSERT INTO session VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row)
        if self.pinned(place.sid) != place.record:
            raise Refusal(Code.E_POLICY, "Session refused", "its sid has another record", "Open another session")

    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
        return row


def _refuse_lost(folder: Path) -> None:
    """Refuse a folder where this site has worked already, but whose memory of it is gone: deleted, or emptied."""
    state, lock = folder / "state.sqlite", folder / "lock"
    opened = any(folder.glob("ledger-*.sqlite")) or (lock.exists() and lock.stat().st_size > 0)
    if opened and not (state.exists() and state.stat().st_size > 0):
        why = "its state.sqlite is gone, and with it what this site has answered"
        raise Refusal(
            Code.FILE_MISSING, f"Key store {folder} not opened", why, "Put it back, or join anew in an empty folder"
        )


def _refuse_open_modes(folder: Path) -> None:
    for path, mode in ((folder, 0o700), (folder / "identity", 0o600)):
        if path.stat().st_mode & 0o077:
            why = f"others may read {path.name}"
            raise Refusal(Code.CONFIG_INVALID, f"Key store {folder} not opened", why, f"chmod {mode:o} {path}")


def _locked(path: Path) -> int:
    """A lock that ends with this process, however it ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        why = "another process holds it"
        raise Refusal(Code.KEYS_LOCKED, f"Key store {path.parent} not opened", why, "Stop that process") from None
    return handle


def _ids(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split()))


def _used(code: Code, number: int) -> Refusal:
    return Refusal(code, f"Number {number} refused", "it was used before", "Open a larger number")
