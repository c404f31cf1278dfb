"""A site's table (CSV, plain or gzip) read against the schema, or refused with column and line, never a value."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

from client.sources.columns import Encoder, wanted
from client.sources.source import Reading, Source, contents, invalid
from common.data import Schema, record_id

MOST_BYTES = 8 << 30  # of a table once it is unpacked
_GZIP = b"\x1f\x8b"


def read_table(source: Source, schema: Schema, folder: Path) -> Reading:
    """The records of a table.

    folder  from which a relative path is taken
    The first line names the columns unless `source.columns` does; further columns are ignored; cells lose the
    blanks around them; empty lines are skipped.
    Errors: Refusal FILE_MISSING; DATA_INVALID for bytes that are not UTF-8 or gzip, no rows, ragged rows, a
    column that is absent or named twice, or a cell that does not fit. A message names column and line only.
    """
    path = folder / source.path
    rows, lines = _rows(_text(path), source.delimiter)
    header = list(source.columns) or (rows.pop(0) if rows else [])
    lines = lines[-len(rows) :] if rows else []
    if not header:
        raise invalid(f"{path} not read", "the file is empty", "Export the records with a header line")
    if not rows:
        raise invalid(f"{path} not read", "it has a header but no rows", "Export the records")
    _refuse_ragged(rows, lines, len(header))
    places = _places(header, [*wanted(schema), *filter(None, [source.id])])
    cells = {name: [row[place] for row in rows] for name, place in places.items()}
    return Encoder(lines, frozenset(source.missing)).records(schema, cells, _ids(rows, places.get(source.id)))


def _ids(rows: Sequence[Sequence[str]], person: int | None) -> tuple[bytes, ...]:
    """From the column of the person, or all cells of the row; never its line number, which other records move."""
    return tuple(record_id([c.encode() for c in (row if person is None else [row[person]])]) for row in rows)


def _text(path: Path) -> str:
    """The file as text; gzip is known by its first bytes, a byte order mark is dropped."""
    raw = contents(path)
    if raw.startswith(_GZIP):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
                raw = packed.read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error):
            raise invalid(f"{path} not read", "its gzip data are damaged", "Export the file again") from None
    if len(raw) > MOST_BYTES:
        raise invalid(f"{path} not read", f"it unpacks to more than {MOST_BYTES >> 30} GiB", "Split the file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise invalid(f"{path}, line {line} not read", "its bytes are not UTF-8", "Export the file as UTF-8") from None


def _rows(text: str, delimiter: str) -> tuple[list[list[str]], list[int]]:
    """Rows of stripped cells and the line on which each ends, blank lines left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            if any(cell.strip() for cell in row) or len(row) > 1:
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error:
        why = "quotes or line ends are broken, or a cell is too long"
        raise invalid(f"Table, line {reader.line_num} not read", why, "Export the file again") from None
    return rows, lines


def _refuse_ragged(rows: Sequence[Sequence[str]], lines: Sequence[int], width: int) -> None:
    for row, line in zip(rows, lines, strict=True):
        if len(row) != width:
            why = f"it has {len(row)} cells where the header has {width}"
            raise invalid(f"Table, line {line} not read", why, "Check delimiter and quotes of the export")


def _places(header: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Where each wanted column stands. Refuses an absent one, naming the nearest, and a repeated one by place:
    in a file without a header line the other names are values of the first record."""
    places = {}
    for name in names:
        found = [place for place, given in enumerate(header) if given == name]
        if len(found) > 1:
            where = " and ".join(str(place + 1) for place in found)
            raise invalid(f"Column {name!r} not read", f"columns {where} both bear that name", "Rename one of them")
        if not found:
            near = difflib.get_close_matches(name, header, 1)
            why = f"the nearest column is {near[0]!r}" if near else f"none of the {len(header)} columns bears that name"
            raise invalid(f"Column {name!r} not found", why, "Rename the column, or list `columns` in site.toml")
        places[name] = found[0]
    return places
