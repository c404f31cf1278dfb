"""Shares in a key store: what this site dealt, what it keeps for others, for whom it released a number's shares."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from client.custody import Dealt, Place
from common.errors import Code, Refusal
from common.frames import pack, unpack
from common.secagg.keys import RoundSeed
from common.secagg.wire import Parcel

FORGET_BEFORE = "DELETE FROM share WHERE sid = ? AND number < ?"
FORGET_SHARES = ("DELETE FROM share WHERE sid = ?", "DELETE FROM box WHERE sid = ?")
FORGET_EARLIER_SHARES = (
    "DELETE FROM share WHERE sid IN (SELECT sid FROM session WHERE job = ? AND sid != ?)",
    "DELETE FROM box WHERE sid IN (SELECT sid FROM session WHERE job = ? AND sid != ?)",
)
_LIMIT = 2**30  # bytes of stored parcels: they were ours


class SqliteShares:
    """A `ShareStore` on the tables of a key store. Each change is one transaction of that store."""

    def __init__(
        self, connection: sqlite3.Connection, transaction: Callable[[], AbstractContextManager[sqlite3.Cursor]]
    ):
        self._connection, self._transaction = connection, transaction

    def __repr__(self) -> str:
        return "SqliteShares"

    def box(self, sid: bytes) -> RoundSeed | None:
        """Behind the key that others seal shares with, until the shares are kept."""
        row = self._row("SELECT secret FROM box WHERE sid = ?", sid)
        return None if row is None or row[0] is None else RoundSeed(row[0])

    def dealt(self, sid: bytes) -> Dealt | None:
        """What this site dealt in the session."""
        row = self._row("SELECT boxes, parcels FROM box WHERE sid = ?", sid)
        if row is None or row[0] is None:
            return None
        return Dealt(boxes=bytes(row[0]), parcels=unpack(tuple[Parcel, ...], row[1], _LIMIT))

    def deal(self, place: Place, dealt: Dealt) -> None:
        """Keep what leaves. Refuses a second deal."""
        query = "UPDATE box SET boxes = ?, parcels = ? WHERE sid = ? AND boxes IS NULL"
        with self._transaction() as cursor:
            _once(cursor.execute(query, (dealt.boxes, pack(dealt.parcels), place.sid)))

    def kept(self, sid: bytes) -> bytes | None:
        """Digest of the parcels whose shares are kept."""
        row = self._row("SELECT kept FROM box WHERE sid = ?", sid)
        return None if row is None or row[0] is None else bytes(row[0])

    def keep(self, place: Place, digest: bytes, shares: Mapping[int, tuple[bytes, ...]]) -> None:
        """Keep shares of all numbers from `place.number` on, by dealer; erase the box. Refuses a second time."""
        rows = [
            (place.sid, place.number + step, dealer, share)
            for dealer, each in shares.items()
            for step, share in enumerate(each)
        ]
        query = "UPDATE box SET secret = NULL, kept = ? WHERE sid = ? AND secret IS NOT NULL"
        with self._transaction() as cursor:
            _once(cursor.execute(query, (digest, place.sid)))
            cursor.executemany("INSERT INTO share VALUES (?, ?, ?, ?)", rows)

    def share(self, sid: bytes, number: int, dealer: int) -> bytes | None:
        """The share of a dealer's seed of one number, unless it is erased."""
        row = self._row("SELECT share FROM share WHERE sid = ? AND number = ? AND dealer = ?", sid, number, dealer)
        return None if row is None else bytes(row[0])

    def released(self, sid: bytes, number: int) -> tuple[int, ...] | None:
        """The lost sites whose shares of the number were released."""
        row = self._row("SELECT lost FROM released WHERE sid = ? AND number = ?", sid, number)
        return None if row is None else tuple(map(int, row[0].split()))

    def release(self, place: Place, lost: tuple[int, ...]) -> None:
        """Remember for whom shares of the number are released. Refuses other sites than before."""
        query = "INSERT INTO released VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        with self._transaction() as cursor:
            cursor.execute(query, (place.sid, place.number, " ".join(map(str, lost))))
            if self.released(place.sid, place.number) != lost:
                why = "shares of other sites were released under this number"
                raise Refusal(Code.E_SET, "Shares not released", why, "Repeat the round under another number")

    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
        return row


def _once(cursor: sqlite3.Cursor) -> None:
    if cursor.rowcount != 1:
        why = "this site did not enrol in the session, or did this before"
        raise Refusal(Code.E_ROUND, "Shares refused", why, "Open another session")
