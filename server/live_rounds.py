"""The rounds of a run in a file that grows line by line: what a checkpoint relies on in it is never written again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import Code, Refusal
from server.durable import write_whole

Row = dict[str, Any]


@dataclass(frozen=True)
class Cut:
    """Where a checkpoint cuts the file: the settled rows in front, and the newest one, which may still change.

    settled  how many rows        size  of them in bytes        digest  of those bytes, SHA-256 in hex
    newest   the row after them, as the checkpoint itself holds it; None before the first round
    """

    settled: int
    size: int
    digest: str
    newest: Row | None


class LiveRounds:
    """Keeps rounds.jsonl up to date at the cost of the rows that are new.

    A row is settled once another follows it. The newest one may be replaced (counts of held-out records add to it), so
    it stands in the checkpoint as well, and a crash while its line is written costs nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._digest = path, hashlib.sha256()
        self._settled, self._size = 0, 0
        self._newest: Row | None = None
        self._begun = False

    def keep(self, rounds: Sequence[Row]) -> Cut:
        """Bring the file up to `rounds`, on disk before this returns. All but the newest must be as they were before.

        The first call of a process writes the file whole: whatever a crash left of the last line is gone then, and
        every settled line has the bytes that it had.
        """
        newest = rounds[-1] if rounds else None
        if not self._begun:
            write_whole(self._path, b"".join(map(_line, rounds)))
        elif newest is not self._newest and newest is not None:
            self._replace_end(b"".join(map(_line, rounds[self._settled :])))
        self._settle(rounds[self._settled : -1])
        self._newest, self._begun = newest, True
        return Cut(self._settled, self._size, self._digest.hexdigest(), newest)

    def _replace_end(self, lines: bytes) -> None:
        """Write everything behind the settled rows anew."""
        with self._path.open("r+b") as file:
            file.seek(self._size)
            file.truncate()
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def _settle(self, rows: Sequence[Row]) -> None:
        for line in map(_line, rows):
            self._digest.update(line)
            self._size += len(line)
            self._settled += 1


def rows_at(path: Path, cut: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows that a checkpoint stands for. cut: `Cut` as a table.

    Errors: Refusal CONFIG_INVALID if the file does not hold them any more. KeyError, ValueError, TypeError for another
    form of `cut`.
    """
    size, digest = int(cut["size"]), str(cut["digest"])
    data = b""
    if size:
        try:
            with path.open("rb") as file:
                data = file.read(size)
        except OSError:
            raise _damaged(path) from None
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise _damaged(path)
    rows = [json.loads(line) for line in data.splitlines()]
    if len(rows) != cut["settled"]:
        raise _damaged(path)
    return tuple(rows) if cut["newest"] is None else (*rows, dict(cut["newest"]))


def _line(row: Row) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _damaged(path: Path) -> Refusal:
    return Refusal(
        Code.CONFIG_INVALID,
        f"Rounds {path} not read",
        "they are not those that the checkpoint was written with",
        "Restore them, or give the run up with `hushfed server discard` and start it anew",
    )
