"""A measurement of hours, kept row by row: what was measured is on disk, and the same command goes on from there.

The folder's rows.json names its settings from the first moment on; rows of other settings never come to stand in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from common.config import plain
from common.errors import Code, Refusal
from common.lock import Purpose, hold
from common.versions import versions
from server.durable import write_whole
from simulations.bench.accuracy.measure import Row
from simulations.bench.accuracy.studies import Study
from simulations.finish import refuse_to_overwrite

ROWS, LOCK, FIGURE = "rows.json", ".lock", "privacy-accuracy.svg"
Place = tuple[str, int]  # study and number of sites


class Journal:
    """The rows of one measurement; `journal_in` makes one. out: None keeps nothing on disk."""

    def __init__(self, out: Path | None, settings: dict[str, Any], rows: Sequence[Row] = ()) -> None:
        self._out, self._settings, self.rows = out, settings, list(rows)

    def measured(self, study: Study, sites: int) -> bool:
        """Whether this row was measured, now or before an interruption."""
        return (study.name, sites) in {(row.study, row.sites) for row in self.rows}

    def add(self, row: Row) -> None:
        """Keep `row`: on disk, beside those before it, when this returns."""
        self.rows.append(row)
        self.keep()

    def keep(self) -> None:
        """Write all rows so far, as those of a measurement that is not complete."""
        self._write("measuring", {})

    def close(self, result: dict[str, Any], drawing: str) -> Path | None:
        """Write the figure, then say that the measurement is complete; the figure's path."""
        if self._out is None:
            return None
        figure = self._out / FIGURE
        write_whole(figure, drawing.encode())
        self._write("complete", result)
        return figure

    def _write(self, status: str, result: dict[str, Any]) -> None:
        if self._out is not None:
            rows = [row.as_dict() for row in self.rows]
            table = {**result, "status": status, "settings": self._settings, "rows": rows}
            write_whole(self._out / ROWS, json.dumps(table, indent=1).encode() + b"\n")


def settings_of(studies: Sequence[Study], places: Sequence[int], seeds: int) -> dict[str, Any]:
    """All that a row depends on, but the machine and the noise."""
    table = {"studies": [plain(each) for each in studies], "sites": list(places), "seeds": seeds}
    return table | {"versions": versions()}


@contextmanager
def journal_in(out: Path | None, settings: dict[str, Any]) -> Iterator[Journal]:
    """The journal of the folder `out`: a new one, or that of an interrupted measurement with the same settings.

    Errors: Refusal FILE_EXISTS for a folder with anything else in it, with a measurement that is complete or of other
    settings; DATA_INVALID for one that is damaged; ALREADY_RUNNING, FILE_UNWRITABLE. Then nothing was changed.
    """
    if out is None:
        yield Journal(None, settings)
        return
    begun = (out / ROWS).is_file()
    if not begun and _strange(out):
        refuse_to_overwrite(out)
    harm = "two measurements would write over each other's rows"
    purpose = Purpose(by="hushfed bench privacy-accuracy", what=f"{out} not used", harm=harm)
    with hold(out / LOCK, purpose):
        journal = Journal(out, settings, _earlier(out / ROWS, settings) if begun else ())
        journal.keep()
        yield journal


def _strange(out: Path) -> bool:
    """Whether the folder is other than one in which a measurement was killed before it wrote anything whole."""
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    return LOCK not in found or bool(found - {LOCK, f"{ROWS}.part"})


def _earlier(file: Path, settings: dict[str, Any]) -> list[Row]:
    """The rows that an interrupted measurement left. Errors: as `journal_in`."""
    try:
        table = json.loads(file.read_bytes())
        rows = msgspec.convert(table["rows"], list[Row], strict=True)
        status, found = table["status"], table["settings"]
    except (OSError, ValueError, KeyError, TypeError, msgspec.ValidationError):
        why = "it is damaged, or of another kind of measurement"
        raise Refusal(Code.DATA_INVALID, f"{file} not read", why, "Name a new folder with --out") from None
    if found != settings:
        raise Refusal(Code.FILE_EXISTS, f"{file.parent} not used", _difference(found, settings), _DO)
    if status == "complete":
        raise Refusal(Code.FILE_EXISTS, f"{file.parent} not used", "its measurement is complete", _DO)
    return rows


_DO = "Name a new folder with --out, or repeat the very command that began there"


def _difference(found: Any, settings: dict[str, Any]) -> str:
    """In which settings an earlier measurement differs."""
    known = found if isinstance(found, dict) else {}
    names = sorted(name for name in settings.keys() | known.keys() if known.get(name) != settings.get(name))
    return f"its measurement was begun with other {' and '.join(names)}"
