"""The folder of a study: its plan, and one folder for each cell that is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import canonical, load, plain
from common.errors import Code, Refusal
from common.lock import Held, Purpose, hold
from server.durable import write_whole
from simulations.study.results import Result

PLAN, CELL, RESULT, RUN, FAULT = "study.json", "cell.json", "result.json", "run", "fault.log"
NAME_LETTERS = 32  # of an id, in the name of its folder: 128 bits
_PART = ".part"
_PURPOSE = Purpose(
    by="hushfed simulate", what="Study not played", harm="two of them would play the same cells and clear each other's"
)


@dataclass(frozen=True)
class Found:
    """A result that validates. id: of the cell and its code.  key: of the cell alone."""

    id: str
    key: str
    result: Result


@dataclass(frozen=True)
class Store:
    """The folder of one study."""

    folder: Path

    @property
    def cells(self) -> Path:
        """Where the folders of cells lie."""
        return self.folder / "cells"

    def plan(self) -> dict[str, Any]:
        """The plan as a table. Errors: Refusal FILE_MISSING, DATA_INVALID."""
        path = self.folder / PLAN
        try:
            table = json.loads(path.read_bytes())
        except OSError:
            why = f"it holds no {PLAN}, so it is not the folder of a study"
            raise Refusal(Code.FILE_MISSING, f"{self.folder} not read", why, "Check the path") from None
        except ValueError:
            why, do = "it is damaged", "Restore it; `simulate resume --study FILE` writes it anew"
            raise Refusal(Code.DATA_INVALID, f"{path} not read", why, do) from None
        return dict(table)

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Write the plan, whole. Errors: OSError."""
        self.cells.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / PLAN, json.dumps(plan, indent=2).encode() + b"\n")

    def alone(self) -> Held:
        """Be the only process that plays this study. Errors: Refusal ALREADY_RUNNING, FILE_UNWRITABLE."""
        return hold(self.folder / "study.lock", _PURPOSE)

    def clear(self) -> None:
        """Remove what processes left behind that ended within a cell. By the holder of `alone` only."""
        for path in self.cells.glob(f"*{_PART}"):
            shutil.rmtree(path, ignore_errors=True)

    def begin(self, cell: str) -> Path:
        """A new folder to play the cell with this id in; `commit` gives it its name. Errors: OSError."""
        part = self._place(cell).with_suffix(_PART)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        return part

    def commit(self, cell: str, form: bytes, result: Result) -> None:
        """Give the folder of `begin` its name, once everything in it is on disk. An older result gives way.

        cell  id of the cell          form  its canonical bytes
        Errors: OSError, and then the cell is as if it had never begun.
        """
        part, place = self._place(cell).with_suffix(_PART), self._place(cell)
        (part / CELL).write_bytes(form)
        (part / RESULT).write_bytes(_sealed(cell, form, result))
        _flush(part)
        shutil.rmtree(place, ignore_errors=True)
        part.replace(place)
        _flush_one(self.cells)

    def read(self, cell: str) -> Result | None:
        """The result of the cell with this id, if it is there and validates."""
        found = _read(self._place(cell))
        return found.result if found and found.id == cell else None

    def others(self, ids: frozenset[str]) -> dict[str, Found]:
        """By key, the newest result of each cell that other code made: whatever validates and is none of `ids`."""
        folders = sorted(self.cells.glob("*"), key=lambda path: path.stat().st_mtime_ns)
        found = [each for path in folders if path.suffix != _PART and (each := _read(path))]
        return {each.key: each for each in found if each.id not in ids}

    def drop(self, cell: str) -> None:
        """Remove a part that will not be finished."""
        shutil.rmtree(self._place(cell).with_suffix(_PART), ignore_errors=True)

    def _place(self, cell: str) -> Path:
        return self.cells / cell[:NAME_LETTERS]


def _sealed(cell: str, form: bytes, result: Result) -> bytes:
    """The content of result.json: a digest over cell, form and result shows every later change."""
    table = {"cell": cell, "result": plain(result)}
    return json.dumps({**table, "checksum": _checksum(table, form)}, indent=2).encode() + b"\n"


def _checksum(table: Mapping[str, Any], form: bytes) -> str:
    return hashlib.sha256(canonical(table) + hashlib.sha256(form).digest()).hexdigest()


def _read(folder: Path) -> Found | None:
    with suppress(OSError, ValueError, KeyError, TypeError, Refusal):
        table, form = json.loads((folder / RESULT).read_bytes()), (folder / CELL).read_bytes()
        if table.pop("checksum") == _checksum(table, form) and folder.name == table["cell"][:NAME_LETTERS]:
            return Found(table["cell"], hashlib.sha256(form).hexdigest(), load(Result, table["result"]))
    return None


def _flush(folder: Path) -> None:
    """Everything under `folder` on disk before this returns."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            _flush_one(path)
    _flush_one(folder)


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
