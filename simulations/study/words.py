"""A study's table and comparison as text: columns of equal width, intervals in the style 90.6 ±0.4 (5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from common.printing import clean
from simulations.audits.intervals import Interval
from simulations.study.comparison import Compared, Comparison
from simulations.study.grid import word
from simulations.study.results import FAILED, SHARES, SIGNED, TO_TARGET, TWIN
from simulations.study.statistics import Estimate
from simulations.study.table import STATUSES, Line, Table

COLUMNS: Mapping[str, str] = {"pooled_accuracy": "pooled", "alone_accuracy": "alone", TWIN: "not private"}
ATTACK_COLUMNS: Mapping[str, str] = {
    "attack_difference": "by the attack",
    "attack_success": "attack success",
    "attack_lift": "its lift",
}
CLOCK_COLUMNS: Mapping[str, str] = {
    "hours": "hours",
    "rounds": "rounds",
    TO_TARGET: "to target",
    "late": "late",
    "slow_weight": "slow weight",
    "slow_accuracy": "slow accuracy",
}
FIGURES = ("row", "accuracy", "epsilon", "sd", "detects", "cells", *COLUMNS.values(), *ATTACK_COLUMNS.values())


def table_text(table: Table) -> str:
    """The table for a person. Accuracies in percent: mean, half the 95 % interval, number of cells with a figure."""
    lines = table.lines
    timed = any(line.estimate("hours") for line in lines)
    axes = _heads(table.lines, (*FIGURES, *CLOCK_COLUMNS.values()) if timed else FIGURES)
    gates = list(table.lines[0].gates)
    private = any(line.estimate("epsilon") for line in table.lines)
    attacked = {metric: head for metric, head in ATTACK_COLUMNS.items() if any(each.estimate(metric) for each in lines)}
    columns = attacked | {metric: head for metric, head in COLUMNS.items() if metric != TWIN or private}
    if timed:
        columns |= {each: head for each, head in CLOCK_COLUMNS.items() if each != TO_TARGET or table.study.target}
    rows = [["row", *axes.values(), "accuracy", "sd", "detects", *columns.values()]]
    rows[0] += [*(["epsilon"] if private else []), "cells", *gates]
    for line in table.lines:
        made = line.estimate("accuracy")
        row = [str(line.number), *(word(line.settings[axis]) for axis in axes), _cell(line, "accuracy")]
        row += [_scaled("accuracy", made.sd if made else None), _scaled("accuracy", made.detectable if made else None)]
        row += [_cell(line, metric) for metric in columns]
        row += [_largest(line)] if private else []
        rows.append([*row, _counts(line), *(line.gates[gate].value for gate in gates)])
    return "\n".join([*_aligned(rows), "", *_legend(table, timed=timed)]) + "\n"


def comparison_text(found: Comparison) -> str:
    """The comparison for a person."""
    axes = _heads([row.line for row in found.rows], FIGURES)
    rows = [["row", *axes.values(), f"{found.metric} less baseline", "detects", "p (Holm)", "says", "failed"]]
    for each in found.rows:
        settings = [word(each.line.settings[axis]) for axis in axes]
        rows.append([str(each.line.number), *settings, *_difference(each, found.metric), _share(each.failed)])
    legend = [
        f"Baseline: {clean(found.baseline)}. Paired over common seeds; 95 % intervals; p corrected over all rows.",
    ]
    return "\n".join([*_aligned(rows), "", *legend]) + "\n"


def _difference(each: Compared, metric: str) -> list[str]:
    if each.found is None:
        return ["-", "-", "-", each.verdict]
    made = each.found.estimate
    shown = _estimate(metric, made, sign=True) + f" ({made.n})"
    p = "-" if each.adjusted is None else f"{each.adjusted:.2g}"
    return [shown, _scaled(metric, made.detectable), p, each.verdict]


def _cell(line: Line, metric: str) -> str:
    """ "90.6 ±0.4 (5)"; "(4/5)" where a cell of the row has no figure."""
    made, planned = line.estimate(metric), len(line.entries)
    if made is None:
        return f"- (0/{planned})" if metric == "accuracy" else "-"
    shown = _estimate(metric, made, sign=metric in SIGNED)
    return f"{shown} ({planned if made.n == planned else f'{made.n}/{planned}'})"


def _estimate(metric: str, made: Estimate, *, sign: bool = False) -> str:
    """Mean and half the interval; both ends where these are not equally far."""
    mean = f"{'+' if sign and made.mean >= 0 else ''}{_scaled(metric, made.mean)}"
    if made.low is None or made.high is None:
        return mean
    if made.method == "BCa":
        return f"{mean} [{_scaled(metric, made.low)}, {_scaled(metric, made.high)}]"
    return f"{mean} ±{_scaled(metric, made.high - made.mean)}"


def _scaled(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if metric in SHARES else f"{value:.4g}"


def _largest(line: Line) -> str:
    """The largest epsilon of the row's cells, rounded up; what one cell cost, for each cell is a run of its own."""
    spent = line.figures("epsilon")
    return f"{math.ceil(100 * max(spent.values()) - 1e-9) / 100:.2f}" if spent else "-"


def _counts(line: Line) -> str:
    counts = line.counts
    told = [f"{counts[status]} {status}" for status in STATUSES if counts[status]]
    codes = sorted({e.result.code for e in line.entries if e.result and e.result.status == "error"})
    return ", ".join(told + ([f"{counts['stale']} stale"] if counts["stale"] else []) + codes)


def _share(found: Interval | None) -> str:
    if found is None:
        return "-"
    return f"{_scaled(FAILED, found.value)} [{_scaled(FAILED, found.low)}, {_scaled(FAILED, found.high)}]"


def _heads(lines: Sequence[Line], taken: Sequence[str]) -> dict[str, str]:
    """By axis the shortest end of its dotted name that no other column has. taken: names of columns of figures."""
    axes = list(dict.fromkeys(axis for line in lines for axis in line.settings))
    heads: dict[str, str] = {}
    for axis in axes:
        parts = axis.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        free = [e for e in ends if e not in taken and not any(o.endswith(f".{e}") for o in axes if o != axis)]
        heads[axis] = free[0] if free else axis
    return heads


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines, each column as wide as its widest cell."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


LEGEND = """\
Mean ±half of the 95 % interval (cells with a figure). detects: the difference from another such row that these seeds
find in four cases of five. pooled: one model on all records; alone: each site's own; not private: the same cells
without clip and noise. epsilon: the largest of the row's cells; planned, and not charged, where sums are exact."""
TIMED = """\
hours: on the world's clock, until the last round closed. late: answers after the deadline, of all that were begun. Slow
sites take more than twice the median; weight: their part of the records summed, over their part of all."""
LYING = """\
by the attack: accuracy less that of the same cells in which nobody lies. attack success: triggered held-out records
that get the class which the attack wants; its lift: less the share that gets it where nobody lies."""
HINTS = {
    "stale": "stale: made by other code or libraries; `hushfed simulate resume` plays these cells again.",
    "incomplete": "missing: not played yet; `hushfed simulate resume` goes on.",
}


def _legend(table: Table, *, timed: bool) -> list[str]:
    seeds = table.study.seeds
    lines = [f"{clean(table.study.name)}: {table.status}; {seeds.n} seeds of root {seeds.root}.", LEGEND]
    lines += [TIMED] if timed else []
    lines += [LYING] if any(line.estimate("attack_difference") for line in table.lines) else []
    if timed and table.study.target:
        lines.append(f"to target: hours until a round ended with {100 * table.study.target:.4g} % accuracy.")
    lines += [HINTS[table.status]] if table.status in HINTS else []
    return lines + ([f"gates: {table.verdict.value}"] if table.verdict is not None else [])
