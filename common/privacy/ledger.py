"""The privacy ledger of one site and data set: append-only, chained, signed, on disk before anything happens."""

from __future__ import annotations

import gc
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from common.identity import Signer
from common.privacy.accounting import ONLINE
from common.privacy.chain import chain_of, verify_public
from common.privacy.entries import GENESIS, Entry, Kind, Line, check_signature, signed, tampered
from common.privacy.ledger_file import LedgerFile, connected, locked, rolled_back, unlock
from common.privacy.mechanism import MechanismPlan
from common.privacy.spending import Spending, spending

__all__ = ["Entry", "Kind", "Ledger", "Owner", "new_entry", "open_ledger", "verify_public"]

KEPT_REPLIES = 4  # answers that can be sent again without a new charge


@dataclass(frozen=True)
class Owner:
    """Whose ledger it is. `dataset` is a keyed hash of the data set's name, hex."""

    site: int
    dataset: str


class HeadMemory(Protocol):
    """Where the newest head of each ledger is kept apart from the ledger's own file."""

    def newest_head(self, dataset: str) -> bytes | None:
        """The head that was remembered last for this data set."""

    def remember_head(self, dataset: str, head: bytes) -> None:
        """Remember `head`, on disk before the call returns."""


class Ledger:
    """An open ledger; `open_ledger` makes one. It is held by one process at a time and has no way to forget.

    Every method that writes returns only after the operating system has the bytes on disk.
    """

    def __init__(self, file: LedgerFile, lock: int, signer: Signer, owner: Owner, lines: list[Line]):
        self._file, self._connection = file, file.connection
        self._lock, self._signer, self._owner = lock, signer, owner
        self._memory: HeadMemory | None = None
        self._hashes = {line.hash: seq for seq, line in enumerate(lines)}
        self._head = lines[-1].hash if lines else GENESIS
        self._chain = chain_of(lines)

    @property
    def head(self) -> bytes:
        """Hash of the last line; it names the whole history."""
        return self._head

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first."""
        return tuple(self._chain.entries)

    @property
    def charges(self) -> list[tuple[MechanismPlan, int]]:
        """Every plan and all its steps that count; kept up with each line, so that a gate need not read all of them."""
        return self._chain.charges

    @property
    def open(self) -> dict[int, int]:
        """Reservations without an answer, and how many of their steps may have been executed, by the last mark."""
        return {seq: self._chain.reached(seq) for seq in self._chain.open}

    def contains(self, head: bytes) -> bool:
        """Whether the history that `head` names is a beginning of this one."""
        return head == GENESIS or head in self._hashes

    def refuse_rollback(self, head: bytes) -> None:
        """Refuse if `head`, which the coordinator acknowledged, is missing. Errors: Refusal LEDGER_ROLLED_BACK."""
        if not self.contains(head):
            raise rolled_back("it lacks an entry that was acknowledged: an old copy was restored, or it was deleted")

    def spending(self, delta: float, interval: float = ONLINE) -> Spending:
        """What everything charged so far costs at `delta`."""
        return spending(self._chain.charges, delta, interval)

    def refuse_moved(self) -> None:
        """Refuse to go on if the path no longer leads to the file that is open, or if that was cut or changed.

        What is written into a file that was deleted, replaced or restored is gone when this process ends.
        Errors: Refusal LEDGER_ROLLED_BACK, LEDGER_TAMPERED.
        """
        self._file.refuse_moved(len(self._chain.entries), self._head)

    def append(self, entry: Entry, *, salt: bytes = b"") -> Entry:
        """Write `entry` after all others and return it with its number, site, data set and times.

        salt  of the output that `entry` commits to; kept here, never public
        Errors: Refusal LEDGER_TAMPERED for an entry that does not fit those before it, or as `refuse_moved`; then
        nothing is written. Also as `refuse_moved` if the file was moved meanwhile; then the line may be lost.
        """
        self.refuse_moved()
        entry = replace(
            entry,
            seq=len(self._chain.entries),
            site=self._owner.site,
            dataset=self._owner.dataset,
            wall=round(time.time(), 3),
            elapsed=round(time.monotonic(), 3),
        )
        line = signed(entry, self._head, self._signer)
        self._chain.check(entry)
        self._write(entry.seq, line, salt)
        self._chain.add(entry)
        self._head = line.hash
        self._hashes[line.hash] = entry.seq
        if self._memory is not None:
            self._memory.remember_head(self._owner.dataset, line.hash)
        self.refuse_moved()
        return entry

    def watched(self, memory: HeadMemory) -> None:
        """From now on every head goes to `memory`. Errors: Refusal LEDGER_ROLLED_BACK if its newest one is missing."""
        newest = memory.newest_head(self._owner.dataset)
        self.refuse_rollback(newest or GENESIS)
        self._memory = memory
        if newest != self._head:
            memory.remember_head(self._owner.dataset, self._head)

    def keep_reply(self, request: str, reply: bytes) -> None:
        """Keep the bytes that answered the request, so that they can be sent again for nothing."""
        seq = len(self._chain.entries)
        with self._transaction() as run:
            run("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", (request, seq, reply))
            run(
                "DELETE FROM replies WHERE request NOT IN (SELECT request FROM replies ORDER BY seq DESC LIMIT ?)",
                (KEPT_REPLIES,),
            )

    def reply_to(self, request: str) -> bytes | None:
        """The kept bytes that answered the same request before: sending them again reveals nothing new."""
        row = self._connection.execute("SELECT reply FROM replies WHERE request = ?", (request,)).fetchone()
        return bytes(row[0]) if row else None

    def salt_of(self, seq: int) -> bytes | None:
        """The salt of the output that line `seq` commits to; for the site's own proofs."""
        row = self._connection.execute("SELECT salt FROM salts WHERE seq = ?", (seq,)).fetchone()
        return bytes(row[0]) if row else None

    def public_lines(self) -> bytes:
        """The whole ledger as JSON lines, which `verify_public` accepts. Holds nothing that is secret."""
        return b"".join(line.public() for line in _lines(self._connection))

    def close(self) -> None:
        """Let go of the file; another process may then open it."""
        self._connection.close()
        if self._lock >= 0:
            unlock(self._lock)
        self._lock = -1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, seq: int, line: Line, salt: bytes) -> None:
        with self._transaction() as run:
            run("INSERT INTO lines VALUES (?, ?, ?, ?)", (seq, line.body, line.hash, line.signature))
            if salt:
                run("INSERT INTO salts VALUES (?, ?)", (seq, salt))

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Commit what is done inside, or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection.execute
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def open_ledger(
    path: Path,
    owner: Owner,
    signer: Signer,
    versions: dict[str, str] | None = None,
    memory: HeadMemory | None = None,
    *,
    durable: bool = True,
) -> Ledger:
    """The ledger at `path`, verified; a new one if there is no file.

    versions  of the software, written into a new ledger's first line
    memory    knows the newest head this ledger had, so that a deleted, cut or restored file is noticed
    durable   whether what is written must outlive the machine's fall, and not only the process
    The whole chain is verified, and the last signature, which covers it. Fails closed.
    Errors: Refusal LEDGER_LOCKED if another process holds it, LEDGER_TAMPERED if it does not verify or is not the
    ledger of `owner` and `signer`, LEDGER_ROLLED_BACK if it lacks the head that `memory` knows.
    """
    lock = locked(path)
    connection = None
    try:
        connection = connected(path, durable=durable)
        with _uncollected():
            lines = list(_lines(connection))
            ledger = Ledger(LedgerFile(path, connection), lock, signer, owner, lines)
        _refuse_stranger(ledger, lines, owner, signer)
        _refuse_leftovers(connection, len(lines))
        if memory is not None:
            ledger.watched(memory)
    except BaseException as error:
        if connection is not None:
            connection.close()
        os.close(lock)
        if isinstance(error, sqlite3.DatabaseError):
            raise tampered(f"Ledger {path}", "the file is damaged") from None
        raise
    if not lines:
        ledger.append(first_entry(versions or {}))
    return ledger


def first_entry(versions: dict[str, str]) -> Entry:
    """The entry that opens a ledger."""
    return new_entry(Kind.OPEN, versions=versions, note=secrets.token_hex(16))


def new_entry(kind: Kind, **fields: Any) -> Entry:
    """An entry of `kind` whose number, owner and times `Ledger.append` fills in."""
    return Entry(seq=-1, kind=kind, site=0, dataset="", wall=0.0, elapsed=0.0, **fields)


def _refuse_stranger(ledger: Ledger, lines: list[Line], owner: Owner, signer: Signer) -> None:
    if not lines:
        return
    check_signature(lines[-1], signer.public, len(lines) - 1)
    first = ledger.entries[0]
    if (first.site, first.dataset) != (owner.site, owner.dataset):
        raise tampered("Ledger", "it belongs to another site or data set")


def _refuse_leftovers(connection: sqlite3.Connection, lines: int) -> None:
    """Refuse salts of lines that are not there: some were cut off."""
    last = connection.execute("SELECT max(seq) FROM salts").fetchone()[0]
    if last is not None and last >= lines:
        raise rolled_back(f"it ends before line {last}, whose salt is still there")


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for cyclic garbage: lines make none, and a search takes as long as reading ten thousand of them."""
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()


def _lines(connection: sqlite3.Connection) -> Iterator[Line]:
    for body, place, signature in connection.execute("SELECT body, hash, signature FROM lines ORDER BY seq"):
        if not all(isinstance(part, bytes) for part in (body, place, signature)):
            raise tampered("Ledger", "a line in it is not of bytes")
        yield Line(body, place, signature)
