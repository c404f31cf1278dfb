"""Rows of a study against one of them, or against what no federation would reach: paired over common seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from common.config import canonical, one_of
from common.errors import Code, Refusal
from simulations.audits.intervals import Interval
from simulations.scenario import parted
from simulations.study.grid import words
from simulations.study.results import METRICS, TWIN
from simulations.study.statistics import LEVEL, Difference, difference, holm
from simulations.study.table import Line, Table

WITHIN: Mapping[str, str] = {"pooled": "pooled_accuracy", "alone": "alone_accuracy", "twin": TWIN}
COMPARED = tuple(metric for metric in METRICS if metric not in ("failed", "rounds", "sites"))


@dataclass(frozen=True)
class Compared:
    """One row less the baseline, over the seeds for which both have a figure.

    adjusted  p after Holm's correction over all rows compared; None where there are too few seeds
    failed    share of the row's cells that ended without a model, with Wilson's interval
    """

    line: Line
    found: Difference | None
    adjusted: float | None
    failed: Interval | None

    @property
    def verdict(self) -> Literal["higher", "lower", "undecided"]:
        """What holds at 5 % together with all other rows."""
        if self.found is None or self.adjusted is None or self.adjusted >= 1 - LEVEL:
            return "undecided"
        return "higher" if self.found.estimate.mean > 0 else "lower"

    def as_dict(self) -> dict[str, Any]:
        """What --json prints of the row."""
        found = self.found
        return {
            "row": self.line.number,
            "settings": dict(self.line.settings),
            "difference": vars(found.estimate) if found else None,
            "p": found.p if found else None,
            "adjusted_p": self.adjusted,
            "verdict": self.verdict,
            "failed": {"value": self.failed.value, "low": self.failed.low, "high": self.failed.high}
            if self.failed
            else None,
        }


@dataclass(frozen=True)
class Comparison:
    """Every row less the baseline, in one metric."""

    metric: str
    baseline: str
    rows: tuple[Compared, ...]

    def as_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return {"metric": self.metric, "baseline": self.baseline, "rows": [row.as_dict() for row in self.rows]}


def compare(table: Table, baseline: str = "1", metric: str = "accuracy") -> Comparison:
    """All rows against `baseline`: the number of a row, its settings ("a.b=1, c=x"), or one of pooled, alone, twin.

    With one of these words every row is held against its own baseline of that kind, under its own seeds.
    Guarantee: seeds are common, so what they share (data, deal, weights, faults) cancels in each difference; and the
    chance that any row is called higher or lower that is not, is 5 % over all rows together.
    Errors: Refusal CONFIG_INVALID for an unknown row or metric.
    """
    one_of(metric, "--metric", COMPARED)
    if baseline in WITHIN:
        if metric != "accuracy":
            why = "pooled, alone and twin are baselines of accuracy alone"
            raise Refusal(Code.CONFIG_INVALID, f"--baseline {baseline}", why, "Name a row, or leave --metric out")
        return _compared(table.lines, metric, baseline, lambda line: line.figures(WITHIN[baseline]))
    chosen = _chosen(table, baseline)
    figures = chosen.figures(metric)
    others = tuple(line for line in table.lines if line is not chosen)
    return _compared(others, metric, f"row {chosen.number}: {words(chosen.settings)}", lambda _: figures)


def _compared(
    lines: tuple[Line, ...], metric: str, baseline: str, against: Callable[[Line], Mapping[int, float]]
) -> Comparison:
    found = [_difference(line.figures(metric), against(line)) for line in lines]
    tested = [place for place, each in enumerate(found) if each and each.p is not None]
    adjusted = dict(zip(tested, holm([_p(found[place]) for place in tested]), strict=True))
    rows = [Compared(line, found[place], adjusted.get(place), line.failed) for place, line in enumerate(lines)]
    return Comparison(metric, baseline, tuple(rows))


def _p(found: Difference | None) -> float:
    return 1.0 if found is None or found.p is None else found.p


def _difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    common = sorted(ours.keys() & theirs.keys())
    return difference([ours[number] - theirs[number] for number in common]) if common else None


def _chosen(table: Table, baseline: str) -> Line:
    if baseline.isdecimal():
        found = [line for line in table.lines if line.number == int(baseline)]
    else:
        wanted = dict(parted(part) for part in baseline.split(","))
        for name in wanted:
            one_of(name, "--baseline", {name for line in table.lines for name in line.settings})
        found = [line for line in table.lines if _has(line, wanted)]
    if len(found) != 1:
        why = f"{len(found)} rows are meant by it" if found else "there is no such row"
        do = "Give the number of a row of `hushfed simulate table`, or all its settings"
        raise Refusal(Code.CONFIG_INVALID, f"--baseline {baseline}", why, do)
    return found[0]


def _has(line: Line, wanted: Mapping[str, Any]) -> bool:
    return all(canonical(line.settings.get(name)) == canonical(value) for name, value in wanted.items())
