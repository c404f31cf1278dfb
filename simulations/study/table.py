"""The table of a study: for each row what its cells came to, with intervals, beside what no federation would reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from common.config import plain
from simulations.audits.intervals import Interval, Verdict
from simulations.study.cells import Cell, Row, rows_of
from simulations.study.gates import judged, together
from simulations.study.plan import Study
from simulations.study.results import ATTACKED, CLOCKED, FAILED, PLACES, TO_TARGET, TWIN, Result
from simulations.study.statistics import Estimate, estimate, rate
from simulations.study.store import Found, Store

STATUSES = ("completed", "diverged", "error", "missing")


@dataclass(frozen=True)
class Entry:
    """What is known of one cell of a row.

    stale   the result was made by other code, and there is none by this      target  the study's, if it has one
    """

    id: str
    result: Result | None
    twin: Result | None
    stale: bool
    target: float | None = None

    @property
    def status(self) -> str:
        """One of STATUSES."""
        return self.result.status if self.result else "missing"

    def figure(self, metric: str) -> float | None:
        """The cell's figure; None where it failed, is missing, or has none."""
        if metric == TO_TARGET:
            return self.result.reached(self.target) if self.result and self.target is not None else None
        result, name = (self.twin, "accuracy") if metric == TWIN else (self.result, metric)
        return result.metrics.get(name) if result and self.result and self.result.status == "completed" else None


@dataclass(frozen=True)
class Line:
    """One row with all its seeds. number: from 1 on.  entries: by replicate."""

    number: int
    settings: Mapping[str, Any]
    entries: tuple[Entry, ...]
    gates: Mapping[str, Verdict] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many cells ended how, and how many of them by other code."""
        found = Counter(entry.status for entry in self.entries)
        return {**{status: found[status] for status in STATUSES}, "stale": sum(entry.stale for entry in self.entries)}

    def figures(self, metric: str) -> dict[int, float]:
        """The figures of a metric by replicate, where there are any."""
        found = {number: entry.figure(metric) for number, entry in enumerate(self.entries)}
        return {number: value for number, value in found.items() if value is not None}

    def estimate(self, metric: str) -> Estimate | None:
        """Mean and interval over the cells that have a figure; None without one."""
        values = list(self.figures(metric).values())
        return estimate(values) if values else None

    @property
    def failed(self) -> Interval | None:
        """Share of cells that ended without a model, of those that ended."""
        counts = self.counts
        ended = len(self.entries) - counts["missing"]
        return rate(counts["diverged"] + counts["error"], ended) if ended else None


@dataclass(frozen=True)
class Table:
    """All rows of a study, as far as they were played."""

    study: Study
    lines: tuple[Line, ...]

    @property
    def status(self) -> str:
        """ "completed" once every cell has a result; "incomplete"; "stale" where some result is by other code."""
        counts = [line.counts for line in self.lines]
        if any(each["missing"] for each in counts):
            return "incomplete"
        return "stale" if any(each["stale"] for each in counts) else "completed"

    @property
    def verdict(self) -> Verdict | None:
        """Of all gates in all rows; None without gates."""
        return together(v for line in self.lines for v in line.gates.values()) if self.study.gates else None

    def as_dict(self) -> dict[str, Any]:
        """What --json prints. Nothing in it depends on when, where or how fast a cell was played."""
        return {
            "status": self.status,
            "name": self.study.name,
            "seeds": plain(self.study.seeds),
            "verdict": self.verdict,
            "rows": [_as_dict(line) for line in self.lines],
        }


def table_of(store: Store, study: Study, code: str) -> Table:
    """The table of what a folder holds, for the code of the digest `code`.

    A cell that has no result of this code shows that of other code, if there is one, and is counted as stale.
    """
    rows = rows_of(study)
    ids = frozenset(cell.id(code) for row in rows for cell in (*row.cells, *row.twins))
    results = {cell: store.read(cell) for cell in ids}
    others = store.others(ids)
    lines = []
    for number, row in enumerate(rows, 1):
        found = (_entry(row, place, code, results, others) for place in range(len(row.cells)))
        entries = tuple(replace(entry, target=study.target) for entry in found)
        line = Line(number, row.settings, entries)
        lines.append(Line(number, row.settings, entries, _gates(study, line)))
    return Table(study, tuple(lines))


def _entry(row: Row, place: int, code: str, results: Mapping[str, Result | None], others: Mapping[str, Found]) -> Entry:
    def known(cell: Cell) -> tuple[Result | None, bool]:
        if result := results[cell.id(code)]:
            return result, False
        other = others.get(cell.key)
        return (other.result, True) if other else (None, False)

    result, stale = known(row.cells[place])
    twin, twin_stale = known(row.twins[place])
    return Entry(row.cells[place].id(code), result, twin, stale or twin_stale)


def _gates(study: Study, line: Line) -> dict[str, Verdict]:
    counts = line.counts
    current = not counts["missing"] and not counts["stale"]
    found = {}
    for gate in study.limits:
        made = line.estimate(gate.metric)
        interval = line.failed if gate.metric == FAILED else made.interval if made else None
        whole = current and (gate.metric == FAILED or (made is not None and made.n == len(line.entries)))
        found[str(gate)] = judged(gate, interval, whole=whole)
    return found


def _as_dict(line: Line) -> dict[str, Any]:
    failed = line.failed
    more = [metric for metric in (*CLOCKED, *ATTACKED, TO_TARGET) if line.figures(metric)]
    made = {metric: line.estimate(metric) for metric in (*PLACES, *more, TWIN)}
    return {
        "row": line.number,
        "settings": dict(line.settings),
        "planned": len(line.entries),
        "cells": line.counts,
        "failed": {"value": failed.value, "low": failed.low, "high": failed.high} if failed else None,
        "metrics": {metric: vars(each) if each else None for metric, each in made.items()},
        "gates": dict(line.gates),
        "failures": [_failure(number, entry) for number, entry in enumerate(line.entries) if _is_failure(entry)],
        "ids": [entry.id for entry in line.entries],
    }


def _is_failure(entry: Entry) -> bool:
    return entry.status in ("diverged", "error")


def _failure(number: int, entry: Entry) -> dict[str, Any]:
    result = entry.result
    return {
        "replicate": number,
        "status": entry.status,
        "code": result.code if result else "",
        "why": result.why if result else "",
    }
