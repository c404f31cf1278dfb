"""Predictions of any model, read from a local CSV table; a refusal names the line, never the value."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import Code, Refusal
from simulations.audits.groups import Tally, from_rows

UNKNOWN = "unknown"  # the group of rows whose sensitive value is blank
MOST_GROUPS = 100  # more groups than this are numbers or names, not groups
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What the columns of a table mean.

    label      what was true: 0 or 1 (also false, true)
    score      what the model said: a number, positive from `threshold` upwards
    sensitive  groups to compare; a blank counts as the group "unknown"
    """

    label: str
    score: str
    sensitive: tuple[str, ...]
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not self.sensitive:
            raise Refusal(
                Code.CONFIG_INVALID, "No groups to compare", "no sensitive column was named", "Give --sensitive COLUMN"
            )
        if not math.isfinite(self.threshold):
            raise Refusal(Code.CONFIG_INVALID, "Threshold not used", "it is not finite", "Give a number such as 0.5")


def read(path: Path, columns: Columns) -> Tally:
    """Outcomes by group of the table at `path`: UTF-8 CSV with a header line, fields separated by commas.

    Errors: Refusal FILE_MISSING; CONFIG_INVALID for a column that is not there (naming the nearest); DATA_INVALID for
    an empty table, a repeated header, a ragged line or a bad value, with its line number.
    """
    labels: list[int] = []
    predictions: list[int] = []
    groups: list[tuple[str, ...]] = []
    with _opened(path) as lines:
        header = next(lines, None)
        if not header:
            raise _bad(f"{path.name} not read", "it is empty", "Export the table with a header line")
        label, score, *sensitive = _places(header, columns)
        for row in lines:
            if not row:
                continue
            if len(row) != len(header):
                why = f"it has {len(row)} fields, the header {len(header)}"
                raise _bad(f"Line {lines.line_num} not read", why, "Correct the line or its quotes")
            labels.append(_label(row[label], lines.line_num, columns.label))
            predictions.append(int(_score(row[score], lines.line_num, columns.score) >= columns.threshold))
            groups.append(tuple(row[place].strip() or UNKNOWN for place in sensitive))
    if not labels:
        raise _bad(f"{path.name} not read", "it has a header but no rows", "Export the table with its rows")
    if len(set(groups)) > MOST_GROUPS:
        why = f"{len(set(groups))} groups would be compared, {MOST_GROUPS} at most"
        raise _bad("Sensitive columns not used", why, "Put numbers into bands, or name fewer columns")
    return from_rows(columns.sensitive, groups, np.array(labels), np.array(predictions))


class _Lines:
    """CSV rows with the number of the line on which each ends; faults of the format are refusals."""

    def __init__(self, rows: Iterator[list[str]], name: str):
        self._rows, self._name = rows, name

    @property
    def line_num(self) -> int:
        return int(getattr(self._rows, "line_num", 0))

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> list[str]:
        try:
            return next(self._rows)
        except csv.Error as error:
            raise _bad(f"Line {self.line_num} not read", str(error), "Correct the line or its quotes") from None
        except UnicodeDecodeError:
            where = f"after line {self.line_num}"
            raise _bad(f"{self._name} not read", f"{where} it is not UTF-8 text", "Export the table as UTF-8") from None


@contextmanager
def _opened(path: Path) -> Iterator[_Lines]:
    """The rows of a CSV file, the byte order mark of spreadsheets removed."""
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        why = (error.strerror or "it cannot be opened").lower()
        raise Refusal(Code.FILE_MISSING, f"{path} not read", why, "Check the path and your rights") from None
    with file:
        yield _Lines(csv.reader(file, strict=True), path.name)


def _places(header: list[str], columns: Columns) -> list[int]:
    """Where label, score and sensitive columns stand."""
    names = [name.strip() for name in header]
    repeated = sorted({name for name in names if names.count(name) > 1})
    wanted = [columns.label, columns.score, *columns.sensitive]
    for name in wanted:
        if name in repeated:
            raise _bad(f"Column {name!r} not used", "the header names it twice", "Give each column its own name")
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"the nearest is {near[0]!r}" if near else f"there are {', '.join(names)}"
            raise Refusal(Code.CONFIG_INVALID, f"No column {name!r}", hint, "Correct the name of the column")
    if len(set(columns.sensitive)) < len(columns.sensitive):
        raise Refusal(
            Code.CONFIG_INVALID, "Groups not made", "a sensitive column was named twice", "Name each column once"
        )
    return [names.index(name) for name in wanted]


def _label(text: str, line: int, column: str) -> int:
    value = _LABELS.get(text.strip().lower())
    if value is None:
        raise _bad(f"Line {line}, column {column!r}", "the label is neither 0 nor 1", "Correct it or leave the row out")
    return value


def _score(text: str, line: int, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _bad(
            f"Line {line}, column {column!r}", "the score is no finite number", "Correct it or leave the row out"
        )
    return value


def _bad(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.DATA_INVALID, what, why, do)
